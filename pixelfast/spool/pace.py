"""How far apart group commits start: not so close that each stores a handful of events."""

from __future__ import annotations

__all__ = ["Pace"]

_MAX_S = 0.005
_FEW_EVENTS = 8
_WEIGHT = 1 / 8  # of the newest commit in what commits take of late


class Pace:
    """Says how long the next commit should wait for more events.

    From start to start it is half of what a commit takes of late, `min_s` at least and 5 ms at the
    most. So it is nothing on a slow disk, where more than that has passed when a commit ends, and
    nothing where fewer than 8 events wait: those wait for no others. With `min_s` = 0 it is off.

    >>> pace = Pace(0.001)
    >>> pace.on_start(10.0)
    >>> pace.on_end(10.0002)
    >>> round(pace.rest_s(50, 10.0002), 4), pace.rest_s(7, 10.0002), pace.rest_s(50, 10.001)
    (0.0008, 0.0, 0.0)
    """

    __slots__ = ("_min_s", "_started_s", "_taken_s", "total_s")

    def __init__(self, min_s: float) -> None:
        self.total_s = 0.0  # of all commits
        self._min_s = min_s
        self._started_s = float("-inf")
        self._taken_s = 0.0

    def on_start(self, now_s: float) -> None:
        self._started_s = now_s

    def on_end(self, now_s: float) -> None:
        taken_s = now_s - self._started_s
        self.total_s += taken_s
        self._taken_s += (taken_s - self._taken_s) * _WEIGHT

    def rest_s(self, events: int, now_s: float) -> float:
        """How long a commit of so many events should wait from now on; 0 where it should not."""
        if events < _FEW_EVENTS or not self._min_s:
            return 0.0
        apart_s = min(max(self._taken_s / 2, self._min_s), _MAX_S)
        return max(0.0, self._started_s + apart_s - now_s)
