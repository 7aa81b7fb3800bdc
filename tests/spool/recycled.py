"""Slots with recycled segments, written by hand, for tests."""

from __future__ import annotations

import os

from pixelfast.spool import DataDir, remove_read_segments
from pixelfast.spool.format import SegmentId, spare_name
from tests.spools import SEGMENT_BYTES, Slot, seal

__all__ = ["fill", "fill_spare", "recycle", "spare_inode", "start_recycled"]

OLD = b"old-%010d"


def fill(slot: Slot, event: bytes = OLD, *, keep: int = 0) -> list[bytes]:
    """Write frames of one event until the segment has less than a sixteenth left; return them.

    `keep` is how many more bytes are left at the end.
    """
    written: list[bytes] = []
    while True:
        events = [event % (slot.next_number)]
        if slot.segment.offset + len(slot.image(*events)) > slot.files.segment_bytes - 8 - keep:
            return written
        slot.write(*events)
        written += events


def recycle(slot: Slot) -> None:
    """Recycle all segments before the one that is written, as delivery does."""
    numbers = [slot.segment.id.number]
    remove_read_segments(slot.data, slot.number, numbers, recycled_bytes=slot.files.segment_bytes)


def spare_inode(data: DataDir, number: int = 1, slot: int = 0) -> int:
    return os.stat(data.slot_dir(slot) / spare_name(number)).st_ino  # noqa: PTH116


def start_recycled(slot: Slot, event: bytes = OLD) -> int:
    """Continue in a recycled segment that is full of old frames; return its number.

    The segment before it holds one event: b"between".
    """
    fill(slot, event)
    slot.roll()
    slot.write(b"between")
    recycle(slot)
    inode = spare_inode(slot.data, slot.segment.id.number - 1, slot.number)
    slot.roll()
    assert inode == os.fstat(slot.segment.fd).st_ino
    return slot.segment.id.number


def fill_spare(slot: Slot, number: int, stale: SegmentId) -> None:
    """Replace the old frames of a spare by frames of another segment."""
    path = slot.data.slot_dir(slot.number) / spare_name(number)
    with path.open("r+b") as file:
        offset = 64
        while True:
            image = seal([(0, OLD % offset)], [b"web"], stale, offset, 0, offset)
            if offset + len(image) > SEGMENT_BYTES - 8:
                return
            file.seek(offset)
            file.write(image)
            offset += len(image)
