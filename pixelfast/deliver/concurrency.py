"""How many requests may be under way at once: as many as a destination takes with ease."""

from __future__ import annotations

__all__ = ["Concurrency"]

_FIRST = 4
_LESS = 0.9
_SMOOTHING = 0.05
_SLOWER = 2.0


class Concurrency:
    """Adds one where all that were allowed were used and it went well; a tenth less on trouble.

    Trouble is a failure, or responses that take twice as long as usual: more at once would only
    wait in the destination's queue. What came of requests that began before the last reduction
    says nothing about it, so they reduce no further.

    >>> allowed = Concurrency(64)
    >>> for _ in range(3):
    ...     allowed.succeeded(began_s=0.0, now_s=0.01, under_way=allowed.limit)
    >>> allowed.limit
    7
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(_FIRST, most))
        self._usual_s = 0.0
        self._reduced_s = float("-inf")

    @property
    def limit(self) -> int:
        return int(self._limit)

    def succeeded(self, began_s: float, now_s: float, under_way: int) -> None:
        """A request that `began_s` and ended now, with so many under way."""
        took_s = now_s - began_s
        if self._usual_s and took_s > _SLOWER * self._usual_s:
            self._reduce(began_s, now_s)
        elif under_way >= self.limit:
            self._limit = min(self._limit + 1.0, float(self._most))
        self._usual_s += (took_s - self._usual_s) * (_SMOOTHING if self._usual_s else 1.0)

    def failed(self, began_s: float, now_s: float) -> None:
        self._reduce(began_s, now_s)

    def _reduce(self, began_s: float, now_s: float) -> None:
        if began_s > self._reduced_s:
            self._reduced_s = now_s
            self._limit = max(1.0, self._limit * _LESS)
