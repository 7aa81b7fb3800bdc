"""An event loop for tests, with a timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from tests.waiting import WAIT_S

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], bound_s: float = 3 * WAIT_S) -> T:
    """Run a coroutine on uvloop, as a delivery process does, with a timeout."""

    async def bounded() -> T:
        async with asyncio.timeout(bound_s):
            return await main

    return uvloop.run(bounded())


async def watch(turns_s: list[float]) -> None:
    """Record the CPU time of each turn of the loop."""
    while True:
        began_s = time.thread_time()
        await asyncio.sleep(0)
        turns_s.append(time.thread_time() - began_s)
        await asyncio.sleep(0.0005)
