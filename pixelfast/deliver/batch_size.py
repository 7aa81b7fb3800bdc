"""How large the batches of one destination may be, found out by its responses."""

from __future__ import annotations

from typing import Any

__all__ = ["BatchSize"]

_MIN_BYTES = 1024
_GROWS_AFTER = 50  # accepted batches


class BatchSize:
    """A bound in bytes that halves when a batch is rejected as too large, and grows again later.

    Where the search for the cause ends at a single event, that event was to blame: anybody may send
    a large one, so the bound is again as it was. It doubles after 50 accepted batches, up to
    `most_bytes`, because the limit of a destination may be raised.

    >>> size = BatchSize(1_000_000)
    >>> size.rejected(800_000, events=500)
    >>> size.max_bytes
    400000
    >>> for _ in range(50):
    ...     size.accepted()
    >>> size.max_bytes
    800000
    >>> size.rejected(600_000, events=400)
    >>> size.rejected(30_000, events=1)
    >>> size.max_bytes
    800000
    """

    def __init__(self, most_bytes: int, log: Any = None) -> None:
        self.max_bytes = most_bytes
        self._most_bytes = most_bytes
        self._before_bytes = most_bytes  # the bound before the search for a cause began
        self._accepted = 0  # since the last change
        self._log = log

    def bound(self, most_bytes: int) -> None:
        """Have another upper bound; what was found out by responses stays.

        >>> size = BatchSize(1_000_000)
        >>> size.bound(2_000_000)
        >>> size.max_bytes
        2000000
        """
        is_whole = self.max_bytes == self._most_bytes
        self._most_bytes = most_bytes
        self.max_bytes = most_bytes if is_whole else min(self.max_bytes, most_bytes)
        self._before_bytes = most_bytes if is_whole else min(self._before_bytes, most_bytes)

    def rejected(self, size_bytes: int, *, events: int) -> None:
        """Take notice of status 413 for a batch of so many bytes and events."""
        smaller = max(_MIN_BYTES, size_bytes // 2)
        if events == 1:
            self.max_bytes = self._before_bytes
        elif smaller < self.max_bytes:
            self.max_bytes = smaller
            self._accepted = 0
            if self._log is not None:
                self._log.warning(
                    "batches_made_smaller", max_bytes=smaller, refused_bytes=size_bytes
                )

    def accepted(self) -> None:
        """Take notice of an accepted batch."""
        self._accepted += 1
        if self._accepted >= _GROWS_AFTER and self.max_bytes < self._most_bytes:
            self._accepted = 0
            self.max_bytes = self._before_bytes = min(2 * self.max_bytes, self._most_bytes)
