"""Power cuts under load: every event that was acknowledged with 200 is on the disk."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from tests.reliability.cuts import cut_over_and_over
from tests.reliability.power import loop_disk, why_no_loop_disk
from tests.reliability.rig import Rig

CUTS = 3


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
        self._numbers: dict[int, str] = {}  # by inode: the segment of a file at the last look

    def has_another(self) -> bool:
        """Whether a file is another segment than at the last look."""
        seen: dict[int, str] = {}
        for path in self._slot.iterdir():
            with contextlib.suppress(FileNotFoundError):
                inode = path.stat().st_ino
                if path.suffix == ".spare":
                    seen[inode] = self._numbers.get(inode, "")
                elif path.suffix == ".seg":
                    seen[inode] = path.name
        before, self._numbers = self._numbers, seen
        return any(before.get(inode) not in (None, "", name) for inode, name in seen.items())
