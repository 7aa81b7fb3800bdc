"""How much disk space an archive may use without taking the space that the spool needs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from pixelfast.config import Spool
from pixelfast.spool import DataDir
from pixelfast.spool.datadir import free_bytes

__all__ = ["DiskQuota", "SpoolNeeds"]


class SpoolNeeds(NamedTuple):
    """The disk space that the spool needs, in bytes.

    Attributes:
        min_free: the space that must stay free on every disk.
        max_used: the maximum size of the spool, with segments that are created ahead.
    """

    min_free: int
    max_used: int

    @classmethod
    def of(cls, spool: Spool, workers: int) -> SpoolNeeds:
        """Return the needs of a spool with these settings and number of collectors."""
        return cls(spool.min_free, spool.max_bytes + 2 * workers * spool.segment_bytes)


class DiskQuota:
    """Limit the disk space of an archive, or of dead letters.

    There are three limits; the lowest applies:

    1.  The archive uses at most `max_share` of its file system (0: no such limit).
    2.  `min_free` stays free on the file system.
    3.  If the spool is on the same file system, its maximum size is reserved for it, or half of the
        space for the two of them if that is less.

    An archive thus always leaves space for the spool, even while the spool is empty. Every method
    blocks for the disk.
    """

    def __init__(self, data: DataDir, needs: SpoolNeeds, max_share: float) -> None:
        self._data = data
        self._needs = needs
        self._max_share = max_share

    def limit_bytes(self, folder: Path, used_bytes: int) -> int:
        """Return the current maximum size of an archive that uses `used_bytes`."""
        return min(limit for limit, _ in self._limits(folder, used_bytes))

    def shortage(self, folder: Path, used_bytes: int, more_bytes: int) -> str:
        """Return why an archive of `used_bytes` may not grow by `more_bytes`, or "" if it may."""
        # An empty spool is the worst case, so its size matters only if that exceeds the limit.
        limit, reason = min(self._limits(folder, used_bytes, spool_bytes=0))
        if used_bytes + more_bytes > limit:
            limit, reason = min(self._limits(folder, used_bytes))
        return reason if used_bytes + more_bytes > limit else ""

    def _limits(
        self, folder: Path, used_bytes: int, spool_bytes: int | None = None
    ) -> list[tuple[int, str]]:
        """Return each limit, with a constant string that names it."""
        disk = os.statvfs(folder)
        ours = used_bytes + free_bytes(folder) - self._needs.min_free
        limits = [(ours, "no more than spool.min_free is free on the disk of the archive")]
        if self._max_share and disk.f_blocks:  # some file systems report no size
            limit = int(self._max_share * disk.f_blocks * disk.f_frsize)
            limits.append(
                (limit, f"the archive has reached max_disk_share ({self._max_share:.0%})")
            )
        if folder.stat().st_dev == self._data.path.stat().st_dev:
            both = ours + (self._spool_bytes() if spool_bytes is None else spool_bytes)
            limit = both - min(self._needs.max_used, both // 2)
            limits.append((limit, "the remaining disk space is reserved for the spool"))
        return limits

    def _spool_bytes(self) -> int:
        """Return the disk space of the spool, including preallocated segments."""
        total = 0
        for slot in self._data.slots():
            with (
                contextlib.suppress(FileNotFoundError),
                os.scandir(self._data.slot_dir(slot)) as entries,
            ):
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total
