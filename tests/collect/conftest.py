"""What the tests with real sockets share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.collect.workers import PATIENCE_S, Run


def open_files() -> set[str]:
    """The descriptors of this process, each with what it is."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{entry.name}: {entry.readlink()}")
    return found


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on a loop; afterwards nothing may be left of what it started."""
    request.param().close()  # libuv keeps a pipe for as long as the process lives
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    threads = set(threading.enumerate())
    files = open_files()

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main, PATIENCE_S))

    yield run
    gc.unfreeze()  # a worker freezes what it starts with
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert set() == set(threading.enumerate()) - threads
    assert set() == open_files() - files
