"""A real loop for a test, with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
WAIT_S = 10.0  # bounds that a test fails at, not times that it waits


def run(main: Coroutine[Any, Any, T], bound_s: float = 20.0) -> T:
    """Run a coroutine on uvloop, as the delivery process does; fail where it does not end."""

    async def bounded() -> T:
        async with asyncio.timeout(bound_s):
            return await main

    return uvloop.run(bounded())


async def until(is_so: Callable[[], object], bound_s: float = WAIT_S) -> None:
    """Wait for what tells nobody that it has happened."""
    async with asyncio.timeout(bound_s):
        while not is_so():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)
