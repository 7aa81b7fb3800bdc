"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Backoff", "parse_retry_after"]

_LONGEST_RETRY_AFTER_S = 3600.0


class Backoff:
    """Exponential waits with full jitter.

    Each wait is a random part of an upper bound that doubles from `first_s` to `max_s`, so that
    many senders do not come back all at once.

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
        self._bound_s = first_s
        self.failures = 0  # in a row

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Count a failure; how long to wait after it."""
        self.failures += 1
        bound_s = min(self._bound_s, self._max_s)
        self._bound_s = min(self._bound_s * 2, self._max_s)
        return max(bound_s * self._random(), at_least_s)

    def reset(self) -> None:
        """Count a success."""
        self.failures = 0
        self._bound_s = self._first_s


def parse_retry_after(text: str | None, now: datetime | None = None) -> float:
    """Seconds that a Retry-After header asks to wait (RFC 9110 section 10.2.3), at most an hour.

    >>> parse_retry_after("120"), parse_retry_after(None), parse_retry_after("soon")
    (120.0, 0.0, 0.0)
    """
    if not text:
        return 0.0
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # years and offsets beyond all calendars
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)
