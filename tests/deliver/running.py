"""A real loop for a test, with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from tests.waiting import WAIT_S

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], bound_s: float = 3 * WAIT_S) -> T:
    """Run a coroutine on uvloop, as the delivery process does; fail where it does not end."""

    async def bounded() -> T:
        async with asyncio.timeout(bound_s):
            return await main

    return uvloop.run(bounded())
