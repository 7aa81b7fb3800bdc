"""Giving room back: segments that every destination has read are removed, whole files only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from pixelfast.spool.datadir import DataDir, sync_directory
from pixelfast.spool.format import segment_name

__all__ = ["remove_read_segments"]


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
    removed = 0
    for number in segments:
        if number < earliest:
            with contextlib.suppress(FileNotFoundError):
                (data.slot_dir(slot) / segment_name(number)).unlink()
                removed += 1
    if removed:
        sync_directory(data.slot_dir(slot))
    return removed
