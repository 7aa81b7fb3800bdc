"""kill -9 of every process under load: every event acknowledged with 200 arrives unchanged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.reliability.kills import kill_over_and_over
from tests.reliability.rig import Rig

LIVES = 4


@pytest.mark.parametrize("deliveries", [1, 2])
def test_nothing_is_lost_changed_or_invented_by_kill_9(tmp_path: Path, deliveries: int) -> None:
    with Rig(tmp_path, deliveries=deliveries) as rig:
        rig.oracle.mood = "moody"
        killed = kill_over_and_over(rig, LIVES, random.Random(7))
        assert min(killed.values()) >= LIVES
        rig.oracle.mood = "takes"
        rig.start()
        verdict = rig.assert_clean()
        assert verdict.acked > LIVES * 30
        assert rig.server.stop() == 0


def test_events_of_the_first_moments_reach_destinations_that_begin_at_the_newest(
    tmp_path: Path,
) -> None:
    with Rig(tmp_path, workers=1, start="newest") as rig:
        rig.start()
        rig.oracle.resume()
        rig.kill("delivery")  # maybe before it has a cursor
        rig.oracle.until_acked(50)
        rig.crash()
        rig.oracle.pause()
        rig.start()
        rig.assert_clean()
