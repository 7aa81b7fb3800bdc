"""When this machine first had each destination, in `dest/<name>.since`.

Brokers may be unavailable when a destination is added. Until its consumer group has committed where
it starts, this time determines which events it receives.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from pixelfast.config import Config
from pixelfast.deliver.progress import oldest_undelivered_ms
from pixelfast.spool import DataDir
from pixelfast.spool.datadir import sync_directory

__all__ = ["note_starts", "start_ms"]


def note_starts(config: Config, data: DataDir, clock: Callable[[], float] = time.time) -> None:
    """Record the time for destinations that have none; blocks for the disk.

    For a destination that had delivered from the spool, that is the time of its oldest undelivered
    event, because the spool will be replicated.
    """
    for each in config.destinations:
        path = _path(data, each.name)
        if path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        oldest_ms = oldest_undelivered_ms(data, each.name)
        temporary = path.with_suffix(".since-new")
        with temporary.open("w") as file:
            file.write(f"{oldest_ms or int(clock() * 1000)}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)


def start_ms(data: DataDir, name: str, clock: Callable[[], float] = time.time) -> int:
    """Return the recorded time in milliseconds since 1970, or the current time without a record."""
    with contextlib.suppress(OSError, ValueError):
        return int(_path(data, name).read_text())
    return int(clock() * 1000)


def _path(data: DataDir, name: str) -> Path:
    return data.path / "dest" / f"{name}.since"
