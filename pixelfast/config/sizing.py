"""Computes how long the spool lasts, and warns of settings that can fill a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pixelfast.config.destinations import FileDestination
from pixelfast.config.schema import Config
from pixelfast.config.units import format_bytes

__all__ = ["EVENT_BYTES", "PIXELS_PER_S", "lasting_s", "size_warnings", "time_in_words"]

EVENT_BYTES = 420  # size of a short event in the spool, without compression
PIXELS_PER_S = 50_000

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def lasting_s(size_bytes: float, pixels_per_s: float, event_bytes: float = EVENT_BYTES) -> float:
    """Return how long a spool can store events while a destination accepts none, in seconds.

    >>> round(lasting_s(20 * 2**30, 50_000))
    1023
    """
    return size_bytes / (pixels_per_s * event_bytes)


def time_in_words(seconds: float) -> str:
    """Format a duration in the largest unit of which it has at least two.

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
    """Yield warnings about settings that can fill the spool, or a disk of this machine."""
    if config.cluster is None:
        yield from _of_required(config, pixels_per_s, event_bytes)
    elif config.cluster.when_unavailable == "spool":
        lasting = time_in_words(lasting_s(config.spool.max_bytes, pixels_per_s, event_bytes))
        yield (
            "cluster.when_unavailable: if no broker responds, events fill the spool"
            f" ({format_bytes(config.spool.max_bytes)}) within {lasting} at {pixels_per_s:,.0f}"
            f" pixels/s on this machine and {event_bytes:,.0f} bytes per event; then all pixels are"
            " rejected with 503. Use --rate and --event-bytes to compute with your own figures"
        )
    with contextlib.suppress(OSError):  # this user may not be allowed to access the directory
        yield from _of_disks(config)


def _of_disks(config: Config) -> Iterator[str]:
    spool_bytes = _bytes_below(Path(config.data_dir) / "shards")
    free = _free_bytes(config.data_dir) + spool_bytes - config.spool.min_free
    if free < config.spool.max_bytes:
        yield (
            f"data_dir: the disk has {_about(free)} for the spool, apart from spool.min_free; this"
            f" is less than spool.max_bytes ({format_bytes(config.spool.max_bytes)}). When it is"
            " used up, pixels are rejected with 503 disk-full"
        )
    for each in config.destinations:
        if isinstance(each, FileDestination) and each.keep_bytes:
            folder = each.path or str(Path(config.data_dir) / "events" / each.name)
            size = _size_bytes(folder) - config.spool.min_free
            if size < each.keep_bytes:
                yield (
                    f"destinations[{each.name}].keep_bytes: the disk has {_about(size)}, apart from"
                    f" spool.min_free; this is less than {format_bytes(each.keep_bytes)}. The"
                    " destination will wait for disk space before its oldest files are deleted"
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
        f"required destinations without max_lag_bytes: {names}. If one of them fails, its events"
        f" fill the spool ({format_bytes(config.spool.max_bytes)}) within {lasting} at"
        f" {pixels_per_s:,.0f} pixels/s and {event_bytes:,.0f} bytes per event; then all pixels are"
        " rejected with 503. Set max_lag_bytes or required = false for destinations that may lose"
        " their oldest events. Use --rate and --event-bytes to compute with your own figures"
    )


def _about(size: int) -> str:
    """Format a size in GiB, or in MiB if it is small; a negative size counts as 0."""
    size = max(0, size)
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size // 2**20} MiB"


def _bytes_below(folder: Path) -> int:
    """Return the disk space of all files below a directory; 0 if it does not exist."""
    return sum(
        (Path(parent) / name).lstat().st_blocks * 512
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _existing(path: str) -> Path:
    """Return the directory, or its nearest parent that exists."""
    folder = Path(path).absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _free_bytes(path: str) -> int:
    disk = os.statvfs(_existing(path))
    return disk.f_bavail * disk.f_frsize


def _size_bytes(path: str) -> int:
    disk = os.statvfs(_existing(path))
    return disk.f_blocks * disk.f_frsize
