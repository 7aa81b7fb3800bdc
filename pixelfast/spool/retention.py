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
    would be missed after a crash. The newest segment always stays, so that numbers go on upwards.
    Blocks for the disk. Returns how many segments were removed.
    """
    segments = data.segments(slot)
    earliest = min(cursors, default=0)
    removed = 0
    for number in segments[:-1]:
        if number < earliest:
            with contextlib.suppress(FileNotFoundError):
                (data.slot_dir(slot) / segment_name(number)).unlink()
                removed += 1
    if removed:
        sync_directory(data.slot_dir(slot))
    return removed
