"""Giving room back: segments are removed, whole files only.

Those that every destination has read go by themselves; the oldest ones, read or not, only where the
settings say that they may expire. Segments of a newer version stay: nobody here has read them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import structlog

from pixelfast.errors import SpoolLocked
from pixelfast.spool.datadir import DataDir, free_bytes, lock_file, sync_directory
from pixelfast.spool.end import first_frame, newest_frame
from pixelfast.spool.format import Position, segment_name
from pixelfast.spool.highwater import HighWater, read_high_water, write_high_water

__all__ = [
    "excess_bytes",
    "expire_oldest",
    "remove_drained_slot",
    "remove_read_segments",
    "slot_bytes",
]

_log = structlog.get_logger("spool")


def remove_read_segments(data: DataDir, slot: int, cursors: Iterable[int]) -> int:
    """Remove a slot's segments before the earliest of the destinations' segments.

    The cursors must be on the disk already: a segment that is gone before its cursor has moved
    would be missed after a crash. The newest segment that holds a frame, and those made ahead,
    always stay: one of them is written, and numbers go on upwards from them. Blocks for the disk.
    Returns how many segments were removed.
    """
    segments = data.segments(slot)
    written = data.newest_written(slot)
    # A cursor beyond the newest segment is not of this data: whoever keeps it has read nothing.
    newest = segments[-1] if segments else 0
    known = (number if number <= newest else 0 for number in cursors)
    earliest = min(min(known, default=0), written)
    read = [n for n in segments if n < earliest]
    return _remove(data, slot, [n for n in read if not data.is_newer(slot, n)])


def remove_drained_slot(data: DataDir, slot: int, cursors: Iterable[Position]) -> bool:
    """Remove a slot that nobody writes and every destination has read wholly; True if it went.

    `cursors` are the destinations' positions in the slot, on the disk already, the earliest
    position for one that has none. The slot's lock is held meanwhile, so that no writer starts. Its
    highest numbers are kept, on the disk before the first file goes: a slot that comes back counts
    on from them, and the cursors stay good. Blocks for the disk.
    """
    folder = data.slot_dir(slot)
    try:
        lock = lock_file(folder / "writer.lock")
    except (FileNotFoundError, SpoolLocked):
        return False
    try:
        names = {entry.name for entry in folder.iterdir()}
        segments = data.segments(slot)
        if names - {"writer.lock"} - {segment_name(n) for n in segments}:
            return False  # not ours alone
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
                data, slot, HighWater(max(before.segment, segments[-1]), next_number, end)
            )
            _remove(data, slot, segments)
        (folder / "writer.lock").unlink()
        with contextlib.suppress(OSError):  # somebody came once the lock was gone: it is theirs
            folder.rmdir()
        sync_directory(folder.parent)
    finally:
        os.close(lock)
    if segments:
        _log.info("drained_slot_removed", slot=slot, segments=len(segments))
    return bool(segments)


def excess_bytes(data: DataDir, slot: int, end: Position, max_bytes: int, min_free: int = 0) -> int:
    """How many bytes a slot takes too much: over `max_bytes`, or of the disk's `min_free`.

    `end` is the log's end, as of `LogEnd`: the segment that is written counts up to there.
    """
    return max(0, slot_bytes(data, slot, end) - max_bytes, min_free - free_bytes(data.path))


def slot_bytes(data: DataDir, slot: int, end: Position) -> int:
    """How many bytes a slot's segments take up to the log's end."""
    total = end.offset
    for number in data.segments(slot):
        if number < end.segment:
            with contextlib.suppress(FileNotFoundError):
                total += (data.slot_dir(slot) / segment_name(number)).stat().st_size
    return total


def expire_oldest(data: DataDir, slot: int, needed_bytes: int) -> list[tuple[int, int]]:
    """Remove a slot's oldest segments, read or not, until `needed_bytes` are free.

    Returns the number of each and how many events went with it, by their numbers: those that a
    destination has not read are, for this destination, the numbers from its own on that went. Its
    reader goes on at the oldest segment left. The newest segment that holds a frame, and those made
    ahead, always stay, so less than `needed_bytes` may come free. Blocks for the disk.
    """
    segments = data.segments(slot)
    written = data.newest_written(slot)
    expired: list[tuple[int, int]] = []
    oldest = 0
    for place, number in enumerate(segments):
        if needed_bytes <= 0 or number >= written:
            break
        if data.is_newer(slot, number):
            continue
        with contextlib.suppress(FileNotFoundError):
            needed_bytes -= (data.slot_dir(slot) / segment_name(number)).stat().st_size
        first = first_frame(data, slot, number)
        later = (first_frame(data, slot, each) for each in segments[place + 1 :])
        oldest = next((each.first_number for each in later if each is not None), oldest)
        expired.append((number, max(0, oldest - first.first_number) if first else 0))
    removed = _remove(data, slot, [number for number, _ in expired])
    if removed:
        _log.warning(
            "segments_expired", slot=slot, segments=removed, events=sum(n for _, n in expired)
        )
    return expired


def _is_drained(end: Position, newest: int, cursors: Iterable[Position]) -> bool:
    """Whether all cursors, and at least one, are at the log's end and of this data."""
    positions = list(cursors)
    return bool(positions) and all(end <= each and each.segment <= newest for each in positions)


def _remove(data: DataDir, slot: int, segments: Iterable[int]) -> int:
    removed = 0
    for number in segments:
        with contextlib.suppress(FileNotFoundError):
            (data.slot_dir(slot) / segment_name(number)).unlink()
            removed += 1
    if removed:
        sync_directory(data.slot_dir(slot))
    return removed
