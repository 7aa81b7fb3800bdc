"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Exponential backoff with full jitter.

    Each wait is a random fraction of a maximum that doubles from `first_s` to `max_s`, so that many
    senders do not retry at the same time.

    >>> backoff = Backoff(0.5, 60.0, random=lambda: 1.0)
    >>> [backoff.next_s() for _ in range(9)]
    [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    """

    def __init__(
        self, first_s: float, max_s: float, *, random: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._random = random
        self._limit_s = first_s
        self.failures = 0  # in a row

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Count a failure and return how long to wait after it, in seconds."""
        self.failures += 1
        limit_s = min(self._limit_s, self._max_s)
        self._limit_s = min(self._limit_s * 2, self._max_s)
        return max(limit_s * self._random(), at_least_s)

    def reset(self) -> None:
        """Count a success."""
        self.failures = 0
        self._limit_s = self._first_s
