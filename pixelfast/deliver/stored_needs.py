"""The parts of the spool that destinations of other processes need, from their files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pixelfast.deliver.store import read_low_water
from pixelfast.spool import DataDir, Position
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = ["StoredNeeds", "is_failing", "mark_failing", "mark_working"]

_MARK = "failing"  # in the directory of a destination


class StoredNeeds:
    """Reads the first position of each slot that a destination needs from its state on the disk.

    A state that did not change since the last call is not read again. Every method blocks for the
    disk.
    """

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._known: dict[str, tuple[tuple[int, int, bytes], dict[int, Position]]] = {}

    def read(self, names: Iterable[str]) -> dict[str, dict[int, Position]]:
        """Return the positions of these destinations; omit those whose state cannot be read now."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError, sqlite3.Error, msgspec.DecodeError):
                found[name] = dict(self._low_water(name))
        return found

    def _low_water(self, name: str) -> dict[int, Position]:
        path = self._data.destination_dir(name) / "state.db"
        version = _version(path)
        known = self._known.get(name)
        if known is None or known[0] != version:
            known = self._known[name] = version, read_low_water(path)
        return known[1]


def _version(path: Path) -> tuple[int, int, bytes]:
    """Return what changes with each transaction of a database.

    Two transactions may have the same time, but not the same change counter (SQLite, "Database File
    Format", section 1.3.6).
    """
    with path.open("rb", buffering=0) as file:
        there = os.fstat(file.fileno())
        return there.st_ino, there.st_mtime_ns, os.pread(file.fileno(), 4, 24)


def mark_failing(data: DataDir, name: str) -> None:
    """Tell other processes that a destination has failed and cannot expire its own events.

    Without a mark, for example on a full disk, its events are kept.
    """
    folder = data.destination_dir(name)
    with contextlib.suppress(OSError):
        os.close(os.open(folder / _MARK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))


def mark_working(data: DataDir, name: str) -> None:
    """Remove the mark of `mark_failing`."""
    with contextlib.suppress(OSError):
        (data.destination_dir(name) / _MARK).unlink(missing_ok=True)


def is_failing(folder: Path) -> bool:
    """Return whether the destination with this directory has failed."""
    return (folder / _MARK).exists()
