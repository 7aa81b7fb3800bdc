"""How much of its disk an archive may take: never so much that pixels cannot be stored."""

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
    """What the spool needs of its disk, in bytes."""

    min_free: int  # of every disk: what stays free
    most: int  # all that it may take, with the segments that are made ahead

    @classmethod
    def of(cls, spool: Spool, workers: int) -> SpoolNeeds:
        """Return what a spool with these settings and so many collectors needs."""
        return cls(spool.min_free, spool.max_bytes + 2 * workers * spool.segment_bytes)


class DiskQuota:
    """Tells whether an archive may grow, or whatever else takes room that it need not take.

    Three bounds, each of which keeps something free:

    1.  It takes at most `max_share` of its file system (0: no such bound).
    2.  The file system keeps `min_free`.
    3.  If the spool is on the same file system, it keeps its room: all that it may take, or half of
        what `min_free` and others leave to the two of them if that is less.

    So no archive leaves an empty spool without room. Every method blocks for the disk.
    """

    def __init__(self, data: DataDir, needs: SpoolNeeds, max_share: float) -> None:
        self._data = data
        self._needs = needs
        self._max_share = max_share

    def limit_bytes(self, folder: Path, used_bytes: int) -> int:
        """Return how much an archive that takes `used_bytes` may take as things are."""
        return min(limit for limit, _ in self._limits(folder, used_bytes))

    def shortage(self, folder: Path, used_bytes: int, more_bytes: int) -> str:
        """Return why an archive that takes `used_bytes` may not grow by `more_bytes`, or ""."""
        # A spool that takes nothing yet needs most, so looking at its files is only then worth it.
        limit, reason = min(self._limits(folder, used_bytes, spool_bytes=0))
        if used_bytes + more_bytes > limit:
            limit, reason = min(self._limits(folder, used_bytes))
        return reason if used_bytes + more_bytes > limit else ""

    def _limits(
        self, folder: Path, used_bytes: int, spool_bytes: int | None = None
    ) -> list[tuple[int, str]]:
        """The bounds, and what is said of them: the same words each time."""
        disk = os.statvfs(folder)
        ours = used_bytes + free_bytes(folder) - self._needs.min_free
        limits = [(ours, "its disk has no more than spool.min_free")]
        if self._max_share and disk.f_blocks:  # a file system that does not count has no share
            limit = int(self._max_share * disk.f_blocks * disk.f_frsize)
            limits.append((limit, f"it takes {self._max_share:.0%} of its disk: max_disk_share"))
        if folder.stat().st_dev == self._data.path.stat().st_dev:
            both = ours + (self._spool_bytes() if spool_bytes is None else spool_bytes)
            limit = both - min(self._needs.most, both // 2)
            limits.append((limit, "the rest of its disk is for the spool"))
        return limits

    def _spool_bytes(self) -> int:
        """What the spool takes on the disk, with what is preallocated."""
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
