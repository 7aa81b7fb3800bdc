"""Poll for conditions that no event announces, with a timeout at which a test fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WAIT_S = 60.0  # limit at which a test fails, not a time that it waits
_PAUSE_S = 0.005


async def until(is_so: Callable[[], object], bound_s: float = WAIT_S) -> None:
    """Wait for a condition in this process while its event loop runs."""
    async with asyncio.timeout(bound_s):
        while not is_so():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_PAUSE_S)


def wait_until(is_so: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a condition outside this process; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(_PAUSE_S)
