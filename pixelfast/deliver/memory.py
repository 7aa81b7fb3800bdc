"""How much memory the events of one destination may take."""

from __future__ import annotations

from pixelfast.deliver.batches import BatchLimits

__all__ = ["MemoryShare", "share_of"]

_PROCESS_BYTES = 64 * 2**20  # interpreter and libraries, without any destination
# A thread, connections, and databases with their caches, without any event.
_DESTINATION_BYTES = 4 * 2**20
_MIN_SHARE_BYTES = 2**18
_MAX_WAITING_BYTES = 64 * 2**20  # reading further ahead gains nothing
_MIN_BATCH_BYTES = 2**16  # one event, and room for what is around it
_SENDING_COST = 3  # a batch, its request's body, and that body compressed or in pieces


def share_of(max_memory_bytes: int, destinations: int) -> int:
    """The share of one of several destinations in what the process may take, in bytes.

    A quarter of what is left for events is for the allocator, which does not fill its pages.

    >>> share_of(256 * 2**20, 2) // 2**20
    69
    """
    count = max(1, destinations)
    for_events = (max_memory_bytes - _PROCESS_BYTES - count * _DESTINATION_BYTES) * 3 // 4
    return max(_MIN_SHARE_BYTES, for_events // count)


class MemoryShare:
    """Bounds what is read ahead, how large a batch is and how much is sent at once.

    Each destination has a share of its own, so that one that hangs takes nothing from the others.
    A batch that is being sent costs three times its events. One batch is always allowed.
    """

    def __init__(self, share_bytes: int) -> None:
        self.sending_bytes = 0  # events of the batches that are being sent
        self.resize(share_bytes)

    def resize(self, share_bytes: int) -> None:
        """Have another share from now on; `bound` is to be called again."""
        self._share_bytes = share_bytes
        self._most_batch_bytes = max(_MIN_BATCH_BYTES, share_bytes // (_SENDING_COST + 1))

    @property
    def buffer_bytes(self) -> int:
        """What may be read at once, and be kept of it while it is not needed."""
        return self._share_bytes // 16

    def bound(self, limits: BatchLimits) -> BatchLimits:
        """Return limits whose batches fit."""
        self._most_batch_bytes = min(limits.max_bytes, self._most_batch_bytes)
        return BatchLimits(limits.max_events, self._most_batch_bytes, limits.max_age_s)

    def allows_reading(self, kept_bytes: int) -> bool:
        """Whether to read on, with so many bytes of events in batches, sent or not."""
        taken_bytes = kept_bytes + (_SENDING_COST - 1) * self.sending_bytes
        return taken_bytes < min(_MAX_WAITING_BYTES, self._share_bytes // 2)

    def allows_sending(self) -> bool:
        """Whether to send one more batch."""
        taken_bytes = _SENDING_COST * (self.sending_bytes + self._most_batch_bytes)
        return not self.sending_bytes or taken_bytes <= self._share_bytes
