"""How many requests may be under way at once: as many as a destination handles with ease."""

from __future__ import annotations

__all__ = ["Concurrency"]

_FIRST = 4
_REDUCTION = 0.9
_SMOOTHING = 0.05
_SLOWER = 2.0


class Concurrency:
    """Raise the limit by 1 after a success with all requests in use; lower it by 10 % on trouble.

    Trouble is a failure, or a response that takes more than twice as long as usual: more requests
    would only wait in the destination's queue. Requests that began before the last reduction do not
    reduce the limit again, because they say nothing about the lower limit.

    >>> allowed = Concurrency(64)
    >>> for _ in range(3):
    ...     allowed.succeeded(began_s=0.0, now_s=0.01, under_way=allowed.limit)
    >>> allowed.limit
    7
    """

    def __init__(self, max_limit: int) -> None:
        self._max_limit = max_limit
        self._limit = float(min(_FIRST, max_limit))
        self._usual_s = 0.0
        self._reduced_s = float("-inf")

    @property
    def limit(self) -> int:
        return int(self._limit)

    def succeeded(self, began_s: float, now_s: float, under_way: int) -> None:
        """Count a successful request, one of `under_way` requests at its end."""
        took_s = now_s - began_s
        if self._usual_s and took_s > _SLOWER * self._usual_s:
            self._reduce(began_s, now_s)
        elif under_way >= self.limit:
            self._limit = min(self._limit + 1.0, float(self._max_limit))
        self._usual_s += (took_s - self._usual_s) * (_SMOOTHING if self._usual_s else 1.0)

    def failed(self, began_s: float, now_s: float) -> None:
        self._reduce(began_s, now_s)

    def _reduce(self, began_s: float, now_s: float) -> None:
        if began_s > self._reduced_s:
            self._reduced_s = now_s
            self._limit = max(1.0, self._limit * _REDUCTION)
