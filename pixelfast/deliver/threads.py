"""A thread for calls that block on a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["OwnThread"]

P = ParamSpec("P")
T = TypeVar("T")
_CLOSE_S = 2.0


class OwnThread:
    """Run calls one after the other in one thread.

    Each destination has its own thread. In a shared pool, a few hung file systems would stop all
    destinations.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
        """Call a function in the thread and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*arguments, **options))

    async def close(self) -> None:
        """End the thread after its last call; abandon it if the call takes more than 2 s."""
        loop = asyncio.get_running_loop()
        await asyncio.wait({loop.run_in_executor(None, self._pool.shutdown)}, timeout=_CLOSE_S)
