"""Power cuts under load: every event that was acknowledged with 200 is on the disk."""

from __future__ import annotations

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
        spares = rig.data_dir / "shards" / "0"
        seen: list[Path] = []

        def look(_: int) -> bool:
            seen.extend(spares.glob("*.spare"))
            return True

        cut_over_and_over(rig, disk, CUTS, random.Random(12), events=2500, on_cut=look)
        rig.start()
        rig.assert_clean()
        assert seen, "segments were recycled"
        assert rig.server.stop() == 0
