"""The events that are stored on this machine but not replicated, read from its disk."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from pixelfast.cluster.cursor import read_cursor
from pixelfast.spool import DataDir, Position, SlotReader
from pixelfast.spool.end import newest_frame, number_at
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, segment_name

__all__ = ["SlotBacklog", "backlogs", "was_replicated"]

_HEAD_BYTES = 2**16  # read from a slot to find its oldest event


class SlotBacklog(NamedTuple):
    """The part of a slot's log that the brokers do not have."""

    slot: int
    events: int
    size_bytes: int
    oldest_ms: int  # when its oldest event was received


def backlogs(data: DataDir) -> list[SlotBacklog]:
    """Return the backlog of each slot that has one. Blocks for the disk.

    A running collector records its position once a second, so it may have replicated more.
    """
    found = (_backlog(data, slot) for slot in data.slots())
    return [each for each in found if each is not None]


def was_replicated(data: DataDir) -> bool:
    """Whether the slots of a data directory belong to a cluster."""
    return any((data.path / "shards").glob("*.replicated"))


def _backlog(data: DataDir, slot: int) -> SlotBacklog | None:
    newest = newest_frame(data, slot)
    position = read_cursor(data, slot).position
    if newest is None or newest.end <= position:
        return None
    first = number_at(data, slot, position)
    with closing(SlotReader(data, slot, position)) as reader:
        head = reader.read(_HEAD_BYTES)[:1]
    return SlotBacklog(
        slot,
        max(0, newest.next_number - first) if first is not None else 0,
        _size_bytes(data, slot, position, newest.end),
        head[0].received_ms if head else 0,
    )


def _size_bytes(data: DataDir, slot: int, start: Position, stop: Position) -> int:
    size = 0
    for number in data.segments(slot):
        if not start.segment <= number <= stop.segment:
            continue
        try:
            end = (data.slot_dir(slot) / segment_name(number)).stat().st_size
        except FileNotFoundError:  # it was replicated and removed meanwhile
            continue
        if number == stop.segment:
            end = stop.offset
        begin = start.offset if number == start.segment else SEGMENT_HEADER_BYTES
        size += max(0, end - begin)
    return size
