"""The record of a slot that was removed: the numbers that must not be used again."""

from __future__ import annotations

import os
import time

import msgspec
import structlog

from pixelfast.spool.datadir import DataDir, sync_directory
from pixelfast.spool.format import Position

__all__ = ["HighWater", "read_high_water", "write_high_water"]

_log = structlog.get_logger("spool")


class HighWater(msgspec.Struct, frozen=True):
    """The highest numbers of a slot when it was removed, in `shards/<slot>.last` as JSON."""

    segment: int = 0  # the highest number of a segment
    next_number: int = 0  # of the next event
    end: Position = Position()  # of the log; cursors at or after it have read everything


def read_high_water(data: DataDir, slot: int) -> HighWater:
    """Return a slot's record, or zeros if it has none.

    A damaged record is replaced by numbers that no slot has reached: the seconds since 1970 for
    segments, because fewer than one per second are created, and the nanoseconds for events.
    """
    path = data.high_water_path(slot)
    try:
        return msgspec.json.decode(path.read_bytes(), type=HighWater)
    except FileNotFoundError:
        return HighWater()
    except msgspec.DecodeError as error:
        _log.error("high_water_damaged", slot=slot, path=str(path), error=str(error))
        now_ns = time.time_ns()
        return HighWater(now_ns // 10**9, now_ns)


def write_high_water(data: DataDir, slot: int, record: HighWater) -> None:
    """Write a slot's record completely or not at all, so that it survives a power failure."""
    path = data.high_water_path(slot)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(record) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
