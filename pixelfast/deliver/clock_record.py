"""The wall clock's offset and jumps, stored for the next run.

The steady clock counts from the boot of the machine, so the offset is valid until the next boot.
The record contains the id that Linux gives to each boot, from /proc/sys/kernel/random/boot_id. If
that cannot be read, jumps between two runs are not detected. Recorded jumps stay valid, because
events may be older than they are.
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
    """The boot of the machine for which `offset_s` is valid, and all known jumps."""

    boot: str = ""
    offset_s: float = 0.0
    jumps: list[Jump] = []


def read_clock_record(data: DataDir) -> ClockRecord:
    """Return the record of an earlier run, or an empty one if it cannot be read.

    Blocks for the disk.
    """
    try:
        return msgspec.json.decode(_path(data).read_bytes(), type=ClockRecord)
    except (OSError, msgspec.DecodeError):
        return ClockRecord()


def write_clock_record(data: DataDir, clock: DeliveryClock, boot_id: Path = _BOOT_ID) -> None:
    """Write the record. An error is ignored; the next run then starts without a record.

    Blocks for the disk.
    """
    with contextlib.suppress(OSError):
        record = ClockRecord(this_boot(boot_id), clock.offset_s, clock.jumps)
        temporary = _path(data).with_suffix(f".{os.getpid()}")
        temporary.touch(PRIVATE_FILE)
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(_path(data))


def this_boot(boot_id: Path = _BOOT_ID) -> str:
    """Return the id of the machine's current boot, or "" if it is not known."""
    try:
        return boot_id.read_text().strip()
    except OSError:
        return ""


def _path(data: DataDir) -> Path:
    return data.path / "clock"
