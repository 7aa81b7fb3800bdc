"""Power cuts under load: every event that was acknowledged with 200 is on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import struct
from pathlib import Path

import pytest

from tests.reliability.cuts import cut_over_and_over
from tests.reliability.power import loop_disk, why_no_loop_disk
from tests.reliability.rig import Rig

CUTS = 3
_GET_GENERATION = 0x80087601  # FS_IOC_GETVERSION of linux/fs.h


@pytest.fixture(autouse=True)
def _needs_loop_disk() -> None:
    if reason := why_no_loop_disk():
        pytest.skip(reason)


def test_nothing_is_lost_changed_or_invented_by_power_cuts(tmp_path: Path) -> None:
    with loop_disk(tmp_path) as disk, Rig(tmp_path, data_dir=disk.mount_point / "data") as rig:
        rig.oracle.mood = "moody"
        cut_over_and_over(rig, disk, CUTS, random.Random(11))
        rig.oracle.mood = "takes"
        rig.start()
        verdict = rig.assert_clean()
        assert verdict.acked > CUTS * 150
        assert rig.server.stop() == 0


def test_power_cuts_while_segments_are_recycled_lose_nothing(tmp_path: Path) -> None:
    with (
        loop_disk(tmp_path) as disk,
        Rig(tmp_path, data_dir=disk.mount_point / "data", workers=1, pause_s=0.0) as rig,
    ):
        segments = Recycled(rig.data_dir / "shards" / "0")
        cut_over_and_over(rig, disk, CUTS, random.Random(12), is_due=segments.has_another)
        rig.start()
        rig.assert_clean()
        assert rig.server.stop() == 0


class Recycled:
    """Watches for segments that are the renamed file of an earlier one."""

    def __init__(self, slot: Path) -> None:
        self._slot = slot
        # By inode and its generation: the segment of a file at the last look.
        self._names: dict[tuple[int, int], str] = {}

    def has_another(self) -> bool:
        """Whether a file is another segment than at the last look."""
        seen: dict[tuple[int, int], str] = {}
        for path in self._slot.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == ".spare":
                    seen[_identity(path)] = self._names.get(_identity(path), "")
                elif path.suffix == ".seg":
                    seen[_identity(path)] = path.name
        before, self._names = self._names, seen
        return any(before.get(file) not in (None, "", name) for file, name in seen.items())


def _identity(path: Path) -> tuple[int, int]:
    """Return the inode and its generation, which a new file with the same inode does not share."""
    fd = os.open(path, os.O_RDONLY)
    try:
        generation = struct.unpack("i", fcntl.ioctl(fd, _GET_GENERATION, bytes(8))[:4])[0]
        return os.fstat(fd).st_ino, generation
    finally:
        os.close(fd)
