"""What the tests of the collector share."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.collect.workers import PATIENCE_S, Run
from tests.fakes import FakeCollector
from tests.leaks import nothing_left_open


@pytest.fixture(params=["transport", "socket", "tls"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeCollector]:
    """A collector whose connections write to their transport, to a socket, or over TLS."""
    fake = FakeCollector(has_sockets=request.param == "socket", has_tls=request.param == "tls")
    yield fake
    fake.close()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on a loop; afterwards nothing may be left of what it started."""
    request.param().close()  # libuv keeps a pipe for as long as the process lives
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main, PATIENCE_S))

    with nothing_left_open():
        yield run
        gc.unfreeze()  # a worker freezes what it starts with
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
