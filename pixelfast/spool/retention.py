"""Freeing disk space: whole segments are recycled or removed.

A segment is recycled or removed only if every destination has read or skipped it. Segments of a
newer version stay, because this program has not read them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import structlog

from pixelfast.spool.datadir import DataDir, sync_directory, try_lock_file
from pixelfast.spool.end import newest_frame
from pixelfast.spool.format import (
    Position,
    SegmentId,
    is_recyclable_size,
    segment_name,
    spare_name,
)
from pixelfast.spool.highwater import HighWater, read_high_water, write_high_water
from pixelfast.spool.segments import MAX_SPARES

__all__ = [
    "remove_drained_slot",
    "remove_read_segments",
    "slot_bytes",
]

_log = structlog.get_logger("spool")


def remove_read_segments(
    data: DataDir, slot: int, cursors: Iterable[int], *, recycled_bytes: int = 0
) -> int:
    """Remove a slot's segments before the earliest of the destinations' segments.

    The cursors must be on the disk already: a segment that is removed before its cursor has moved
    would be missing after a crash. The newest segment that holds a frame, and those made ahead,
    always stay: one of them is written, and numbers continue from theirs.

    With `recycled_bytes`, the length of a segment, the first ones become spares for the writer, as
    long as the slot has fewer than `MAX_SPARES`. Blocks for the disk. Return how many segments were
    removed or recycled.
    """
    segments = data.segments(slot)
    written = data.newest_written(slot)
    # A cursor beyond the newest segment is not of this data: its destination has read nothing.
    newest = segments[-1] if segments else 0
    known = (number if number <= newest else 0 for number in cursors)
    earliest = min(min(known, default=0), written)
    read = [n for n in segments if n < earliest]
    return _remove(data, slot, [n for n in read if not data.is_newer(slot, n)], recycled_bytes)


def remove_drained_slot(data: DataDir, slot: int, cursors: Iterable[Position]) -> bool:
    """Remove a slot without a writer that every destination has read; return whether it was.

    `cursors` are the destinations' positions in the slot, on the disk already, with the earliest
    position for one that has none. The slot's lock is held meanwhile, so that no writer starts. Its
    highest numbers are on the disk before the first file is removed: if the slot is created again,
    its numbers continue from them, and the cursors stay valid. Blocks for the disk.
    """
    folder = data.slot_dir(slot)
    try:
        lock = try_lock_file(folder / "writer.lock")
    except FileNotFoundError:
        return False
    if lock is None:
        return False
    try:
        names = {entry.name for entry in folder.iterdir()}
        segments = data.segments(slot)
        spares = data.spares(slot)
        own = {segment_name(n) for n in segments} | {spare_name(n) for n in spares}
        if names - own - {"writer.lock"}:
            return False  # it contains other files
        if any(data.is_newer(slot, number) for number in segments):
            return False
        if segments:
            before = read_high_water(data, slot)
            newest = newest_frame(data, slot)
            end = newest.end if newest else before.end
            if not _is_drained(end, segments[-1], cursors):
                return False
            next_number = max(before.next_number, newest.next_number if newest else 0)
            write_high_water(
                data, slot, HighWater(max(before.segment, *segments, *spares), next_number, end)
            )
            _remove(data, slot, segments)
        for number in spares:
            (folder / spare_name(number)).unlink()
        (folder / "writer.lock").unlink()
        with contextlib.suppress(OSError):  # another process may use it by now
            folder.rmdir()
        sync_directory(folder.parent)
    finally:
        os.close(lock)
    if segments:
        _log.info("slot_removed", slot=slot, segments=len(segments))
    return bool(segments)


def slot_bytes(data: DataDir, slot: int, end: Position) -> int:
    """Return how many bytes a slot's segments take up to the log's end."""
    total = end.offset
    for number in data.segments(slot):
        if number < end.segment:
            with contextlib.suppress(FileNotFoundError):
                total += (data.slot_dir(slot) / segment_name(number)).stat().st_size
    return total


def _is_drained(end: Position, newest: int, cursors: Iterable[Position]) -> bool:
    """Return whether there are cursors, and all are at the log's end and of this data."""
    positions = list(cursors)
    return bool(positions) and all(end <= each and each.segment <= newest for each in positions)


def _remove(data: DataDir, slot: int, segments: Iterable[int], recycled_bytes: int = 0) -> int:
    folder = data.slot_dir(slot)
    wanted_spares = MAX_SPARES - len(data.spares(slot)) if recycled_bytes else 0
    removed = 0
    for number in segments:
        path = folder / segment_name(number)
        with contextlib.suppress(FileNotFoundError):
            if wanted_spares > 0 and _is_recyclable(data, slot, number, recycled_bytes):
                os.rename(path, folder / spare_name(number))  # noqa: PTH104
                wanted_spares -= 1
            else:
                path.unlink()
            removed += 1
    if removed:
        sync_directory(folder)
    return removed


def _is_recyclable(data: DataDir, slot: int, number: int, segment_bytes: int) -> bool:
    """Return whether a segment is undamaged, of the current format, and was closed cleanly."""
    with data.open_segment(slot, number) as opened:
        if opened is None:
            return False
        fd, identity = opened
        if identity != SegmentId(data.node, slot, number):
            return False
        if not is_recyclable_size(os.fstat(fd).st_size, segment_bytes):
            return False
    return not any(data.quarantine_dir.glob(f"{slot}-{number:016x}-*"))
