"""How much memory the events of one destination may use."""

from __future__ import annotations

from pixelfast.deliver.batches import BatchLimits

__all__ = ["MemoryShare", "share_of"]

_PROCESS_BYTES = 64 * 2**20  # interpreter and libraries, without any destination
# A thread, connections, and databases with their caches, without events.
_DESTINATION_BYTES = 4 * 2**20
_MIN_SHARE_BYTES = 2**18
_MAX_WAITING_BYTES = 64 * 2**20  # reading further ahead gains nothing
_MIN_BATCH_BYTES = 2**16  # the largest event, and its surroundings in a request
_SENDING_COST = 3  # the batch, the request's body, and the body compressed or in pieces


def share_of(max_memory_bytes: int, destinations: int) -> int:
    """Return the share of one destination in the memory of the process, in bytes.

    A quarter of the memory for events is reserved for the allocator, which does not fill its pages.

    >>> share_of(256 * 2**20, 2) // 2**20
    69
    """
    count = max(1, destinations)
    for_events = (max_memory_bytes - _PROCESS_BYTES - count * _DESTINATION_BYTES) * 3 // 4
    return max(_MIN_SHARE_BYTES, for_events // count)


class MemoryShare:
    """Limit how much is read ahead, the size of a batch, and how much is sent at once.

    Each destination has its own share, so that one that hangs takes no memory from the others.
    A batch that is being sent uses three times the size of its events. One batch is always allowed.

    Attributes:
        sending_bytes: the size of the events that are being sent.
    """

    def __init__(self, share_bytes: int) -> None:
        self.sending_bytes = 0
        self.resize(share_bytes)

    def resize(self, share_bytes: int) -> None:
        """Change the share; the caller calls `fit` again."""
        self._share_bytes = share_bytes
        self._most_batch_bytes = max(_MIN_BATCH_BYTES, share_bytes // (_SENDING_COST + 1))

    @property
    def buffer_bytes(self) -> int:
        """How much may be read at once, and kept until it is cut."""
        return self._share_bytes // 16

    def fit(self, limits: BatchLimits) -> BatchLimits:
        """Return these limits, lowered so that batches fit into the share."""
        self._most_batch_bytes = min(limits.max_bytes, self._most_batch_bytes)
        return BatchLimits(limits.max_events, self._most_batch_bytes, limits.max_age_s)

    def allows_reading(self, kept_bytes: int) -> bool:
        """Whether to read on while batches hold `kept_bytes` of events, under way or not."""
        used_bytes = kept_bytes + (_SENDING_COST - 1) * self.sending_bytes
        return used_bytes < min(_MAX_WAITING_BYTES, self._share_bytes // 2)

    def allows_sending(self) -> bool:
        """Whether to send one more batch."""
        used_bytes = _SENDING_COST * (self.sending_bytes + self._most_batch_bytes)
        return not self.sending_bytes or used_bytes <= self._share_bytes
