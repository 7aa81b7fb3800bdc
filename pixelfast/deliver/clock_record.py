"""What is known of the wall clock, kept for the next run: how far it was ahead, and its jumps.

The steady clock counts from the start of the machine, so the offset holds until the next start: the
record has the id that Linux gives to each, in /proc/sys/kernel/random/boot_id. If that cannot be
read, jumps between two runs go unnoticed. Jumps hold for as long as events wait that are older.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from pixelfast.deliver.timing import DeliveryClock, Jump
from pixelfast.spool import DataDir
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = ["ClockRecord", "read_clock_record", "write_clock_record"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClockRecord(msgspec.Struct, frozen=True):
    """`boot`: which start of the machine `offset_s` holds for."""

    boot: str = ""
    offset_s: float = 0.0
    jumps: list[Jump] = []


def read_clock_record(data: DataDir) -> ClockRecord:
    """Return what an earlier run recorded; an empty record if it cannot be read.

    Blocks for the disk.
    """
    try:
        return msgspec.json.decode(_path(data).read_bytes(), type=ClockRecord)
    except (OSError, msgspec.DecodeError):
        return ClockRecord()


def write_clock_record(data: DataDir, clock: DeliveryClock, boot_id: Path = _BOOT_ID) -> None:
    """Record what is known. A failure is not reported: then the next run knows nothing.

    Blocks for the disk.
    """
    with contextlib.suppress(OSError):
        record = ClockRecord(this_boot(boot_id), clock.offset_s, clock.jumps)
        temporary = _path(data).with_suffix(f".{os.getpid()}")
        temporary.touch(PRIVATE_FILE)
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(_path(data))


def this_boot(boot_id: Path = _BOOT_ID) -> str:
    """Return the id of this start of the machine; empty if it is not known."""
    try:
        return boot_id.read_text().strip()
    except OSError:
        return ""


def _path(data: DataDir) -> Path:
    return data.path / "clock"
