"""Waiting for what tells nobody that it has happened, with a bound at which a test fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WAIT_S = 60.0  # a bound that a test fails at, not a time that it waits
_PAUSE_S = 0.005  # often enough, and no load to speak of


async def until(is_so: Callable[[], object], bound_s: float = WAIT_S) -> None:
    """Wait for something in this process; its loop goes on meanwhile."""
    async with asyncio.timeout(bound_s):
        while not is_so():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_PAUSE_S)


def wait_until(is_so: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something outside this process; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(_PAUSE_S)
