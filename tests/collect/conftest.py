"""Fixtures of the tests of the collector."""

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
    """Yield a collector whose connections write to a transport, a socket, or TLS."""
    fake = FakeCollector(has_sockets=request.param == "socket", has_tls=request.param == "tls")
    yield fake
    fake.close()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Yield a function that runs a coroutine on a loop, which must leave nothing open."""
    request.param().close()  # libuv keeps one pipe open until the process ends
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main, PATIENCE_S))

    with nothing_left_open():
        yield run
        gc.unfreeze()  # a worker freezes its objects when it starts
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
