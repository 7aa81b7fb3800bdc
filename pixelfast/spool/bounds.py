"""How much disk space a slot may use, and how much must stay free."""

from __future__ import annotations

import structlog

__all__ = ["MIN_SEGMENT_BYTES", "SlotBounds", "segment_bytes_in_force"]

MIN_SEGMENT_BYTES = 2**17
_SEGMENTS_A_SLOT = 8  # at least: one is written, one is created in advance, two may be spares


def segment_bytes_in_force(segment_bytes: int, max_bytes: int, workers: int) -> int:
    """Return the length of new segments: the setting, or less, so that eight fit into each slot.

    >>> segment_bytes_in_force(64 * 2**20, 20 * 2**30, 4) // 2**20
    64
    >>> segment_bytes_in_force(64 * 2**20, 128 * 2**20, 1) // 2**20
    16
    """
    return max(MIN_SEGMENT_BYTES, min(segment_bytes, max_bytes // workers // _SEGMENTS_A_SLOT))


class SlotBounds:
    """The limits of one slot's writer, in bytes.

    Attributes:
        is_disk_full: whether the last `is_full` was because of the disk and not because of the
            slot. If both are full, the slot counts, because delivery frees its space.

    If the oldest events may expire (`drop_oldest`), delivery keeps the limits. The writer then
    applies them only 10 % above `max_bytes` and below half of `min_free`, when delivery does not
    keep up.

    >>> SlotBounds(1000, 0, "reject").is_full(999, 0)
    False
    >>> SlotBounds(1000, 0, "drop_oldest").is_full(1000, 0)
    False
    """

    __slots__ = ("_log", "_max_bytes", "_min_free", "_told", "is_disk_full")

    def __init__(self, max_bytes: int, min_free: int, on_full: str, slot: int = 0) -> None:
        self._told = ""  # the last event that was logged
        self.is_disk_full = False
        self._log = structlog.get_logger("spool").bind(slot=slot)
        drops = on_full == "drop_oldest"
        self._max_bytes = max_bytes + max_bytes // 10 if drops else max_bytes
        self._min_free = min_free // 2 if drops else min_free

    def is_full(self, used_bytes: int, free_bytes: int) -> bool:
        """Return whether events must be rejected; log when that or the reason changes."""
        is_slot_full = used_bytes >= self._max_bytes
        self.is_disk_full = free_bytes < self._min_free and not is_slot_full
        is_full = is_slot_full or self.is_disk_full
        event = "disk_full" if self.is_disk_full else "spool_full" if is_slot_full else ""
        if event != self._told:
            self._told = event
            if is_full:
                self._log.error(
                    event,
                    used_bytes=used_bytes,
                    max_bytes=self._max_bytes,
                    free_bytes=free_bytes,
                    min_free=self._min_free,
                )
            else:
                self._log.info("spool_space_freed", used_bytes=used_bytes, free_bytes=free_bytes)
        return is_full
