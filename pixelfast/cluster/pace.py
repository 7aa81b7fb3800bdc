"""The time between the commits of a collector that replicates.

A message costs about as much CPU time as ten events. While replicating, no commit waits for the
disk, so each turn of the event loop would make one, and messages would cost more than everything
else. Therefore, a commit with few events waits for more of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["CommitPace"]

_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.002, 0.005
_LARGE_EVENTS = 128  # at which the cost of a message hardly counts
_TIMER_S = 0.001  # the resolution of the event loop's timers


class CommitPace:
    """Decides when the next commit may start.

    That is `max_interval_s` after the last one was written, or `min_interval_s` after it if the
    next one has many events.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        min_interval_s: float = _MIN_INTERVAL_S,
        max_interval_s: float = _MAX_INTERVAL_S,
    ) -> None:
        """Begin without a last commit."""
        self._loop = loop
        self._min_interval_s = min_interval_s
        self._max_interval_s = max_interval_s
        self._last_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def delays(self, events: int, resume: Callable[[], None]) -> bool:
        """Return whether a commit of this many events must wait.

        If so, `resume` is called when it is worth asking again.
        """
        is_large = events >= _LARGE_EVENTS
        interval_s = self._min_interval_s if is_large else self._max_interval_s
        elapsed_s = self._loop.time() - self._last_s
        if interval_s - elapsed_s < _TIMER_S / 2:
            return False
        if self._timer is None:
            pause_s = max(_TIMER_S, self._min_interval_s - elapsed_s)
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
