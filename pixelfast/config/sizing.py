"""How long the spool lasts, and settings that can fill a disk: what `pixelfast check` warns of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pixelfast.config.destinations import FileDestination
from pixelfast.config.schema import Config
from pixelfast.config.units import format_bytes

__all__ = ["EVENT_BYTES", "PIXELS_PER_S", "lasting_s", "size_warnings", "time_in_words"]

EVENT_BYTES = 420  # of a short event in the spool, without compression
PIXELS_PER_S = 50_000

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def lasting_s(size_bytes: float, pixels_per_s: float, event_bytes: float = EVENT_BYTES) -> float:
    """Return how long a spool takes events while a destination takes none, in seconds.

    >>> round(lasting_s(20 * 2**30, 50_000))
    1023
    """
    return size_bytes / (pixels_per_s * event_bytes)


def time_in_words(seconds: float) -> str:
    """Write a time to two digits, in the largest unit that it has two of.

    >>> [time_in_words(each) for each in (1023, 51_130, 100, 86_400 * 9.96)]
    ['17 minutes', '14 hours', '100 seconds', '10 days']
    """
    for name, size in _UNITS:
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {name}s"
    return "less than 2 seconds"


def size_warnings(
    config: Config, pixels_per_s: float = PIXELS_PER_S, event_bytes: float = EVENT_BYTES
) -> Iterator[str]:
    """Say what can fill the spool, and a disk of this machine as it is now."""
    yield from _of_required(config, pixels_per_s, event_bytes)
    with contextlib.suppress(OSError):  # whoever checks the settings may not look there
        yield from _of_disks(config)


def _of_disks(config: Config) -> Iterator[str]:
    spool_bytes = _bytes_below(Path(config.data_dir) / "shards")
    free = _free_bytes(config.data_dir) + spool_bytes - config.spool.min_free
    if free < config.spool.max_bytes:
        yield (
            f"data_dir: its disk has {_about(free)} for the spool beyond spool.min_free,"
            f" less than spool.max_bytes, {format_bytes(config.spool.max_bytes)}: pixels are"
            " rejected with 503 (disk-full) when it is used up"
        )
    for each in config.destinations:
        if isinstance(each, FileDestination) and each.keep_bytes:
            folder = each.path or str(Path(config.data_dir) / "events" / each.name)
            size = _size_bytes(folder) - config.spool.min_free
            if size < each.keep_bytes:
                yield (
                    f"destinations[{each.name}].keep_bytes: its disk has {_about(size)} beyond"
                    f" spool.min_free, less than {format_bytes(each.keep_bytes)}: the destination"
                    " waits for room before its oldest files are deleted"
                )


def _of_required(config: Config, pixels_per_s: float, event_bytes: float) -> Iterator[str]:
    endless = [
        each.name for each in config.destinations if each.required and not each.max_lag_bytes
    ]
    if not endless or config.spool.on_full != "reject":
        return
    lasting = time_in_words(lasting_s(config.spool.max_bytes, pixels_per_s, event_bytes))
    names = ", ".join(f'"{name}"' for name in endless)
    yield (
        f"required destinations without max_lag_bytes: {names}. While one of them takes no"
        f" events, they fill the spool: {format_bytes(config.spool.max_bytes)} last {lasting} at"
        f" {pixels_per_s:,.0f} pixels/s of {event_bytes:,.0f} bytes. Then all pixels are rejected"
        " with 503. To prevent that, set max_lag_bytes or required = false for each destination"
        " that may lose its oldest events; --rate and --event-bytes compute with your own figures"
    )


def _about(size: int) -> str:
    """Write a size in GiB, or MiB if it is small; what is less than nothing is nothing."""
    size = max(0, size)
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size // 2**20} MiB"


def _bytes_below(folder: Path) -> int:
    """What the files below a folder take on the disk; 0 if there is no such folder."""
    return sum(
        (Path(parent) / name).lstat().st_blocks * 512
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _existing(path: str) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = Path(path).absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _free_bytes(path: str) -> int:
    disk = os.statvfs(_existing(path))
    return disk.f_bavail * disk.f_frsize


def _size_bytes(path: str) -> int:
    disk = os.statvfs(_existing(path))
    return disk.f_blocks * disk.f_frsize
