"""The maximum size of a destination's batches, adapted to its responses."""

from __future__ import annotations

from typing import Any

__all__ = ["BatchSize"]

_MIN_BYTES = 1024
_GROWS_AFTER = 50  # accepted batches since the last change


class BatchSize:
    """A limit in bytes that halves when a batch is rejected as too large, and grows again later.

    If a rejected batch is divided down to one event that is still too large, that event was the
    cause, and the limit before the division applies again: any client can send a large event. The
    limit doubles after 50 accepted batches, up to `ceiling_bytes`, because the destination may have
    raised its own limit.

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

    def __init__(self, ceiling_bytes: int, log: Any = None) -> None:
        self.max_bytes = ceiling_bytes
        self._ceiling_bytes = ceiling_bytes
        self._before_bytes = ceiling_bytes  # the limit before a batch was divided
        self._accepted = 0  # batches since the last change
        self._log = log

    def set_ceiling(self, ceiling_bytes: int) -> None:
        """Change the ceiling; a limit that was learned from responses stays.

        >>> size = BatchSize(1_000_000)
        >>> size.set_ceiling(2_000_000)
        >>> size.max_bytes
        2000000
        """
        is_whole = self.max_bytes == self._ceiling_bytes
        self._ceiling_bytes = ceiling_bytes
        self.max_bytes = ceiling_bytes if is_whole else min(self.max_bytes, ceiling_bytes)
        self._before_bytes = ceiling_bytes if is_whole else min(self._before_bytes, ceiling_bytes)

    def rejected(self, size_bytes: int, *, events: int) -> None:
        """Count a batch of this size that was rejected as too large."""
        smaller = max(_MIN_BYTES, size_bytes // 2)
        if events == 1:
            self.max_bytes = self._before_bytes
        elif smaller < self.max_bytes:
            self.max_bytes = smaller
            self._accepted = 0
            if self._log is not None:
                self._log.warning(
                    "batch_size_reduced", max_bytes=smaller, rejected_bytes=size_bytes
                )

    def accepted(self) -> None:
        """Count an accepted batch."""
        self._accepted += 1
        if self._accepted >= _GROWS_AFTER and self.max_bytes < self._ceiling_bytes:
            self._accepted = 0
            self.max_bytes = self._before_bytes = min(2 * self.max_bytes, self._ceiling_bytes)
