"""The time between the commits of a collector that replicates.

A message costs about as much CPU time as ten events. While replicating, no commit waits for the
disk, so each turn of the event loop would make one, and messages would cost more than everything
else. Therefore, there is a minimum time between commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["CommitPace"]

_INTERVAL_S = 0.003
_TIMER_S = 0.001  # the resolution of the event loop's timers


class CommitPace:
    """Decides when the next commit may start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, interval_s: float = _INTERVAL_S) -> None:
        """Begin without a last commit; `interval_s` is the minimum time after one."""
        self._loop = loop
        self._interval_s = interval_s
        self._last_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def delays(self, resume: Callable[[], None]) -> bool:
        """Return whether the next commit must wait; if so, `resume` is called when it may start."""
        pause_s = self._last_s + self._interval_s - self._loop.time()
        if pause_s < _TIMER_S / 2:  # timers may be early by this time
            return False
        if self._timer is None:
            self._timer = self._loop.call_later(pause_s, self._end_pause, resume)
        return True

    def note_commit(self) -> None:
        """Note that a commit was written now."""
        self._last_s = self._loop.time()

    def cancel(self) -> None:
        """Call no `resume` any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_pause(self, resume: Callable[[], None]) -> None:
        self._timer = None
        resume()
