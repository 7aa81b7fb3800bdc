"""A short drill: operations on a running server fail no request and lose no event."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.operation import Rounds, drill


def test_restarts_and_reloads_fail_no_request_and_a_process_that_hangs_is_replaced(
    tmp_path: Path,
) -> None:
    phases = drill(
        tmp_path,
        Rounds(restarts=2, reloads=5, upgrades=0, hangs=1),
        hung_after_s=2.0,
        quiet_s=0.5,
    )
    restarts, quiet, reloads, collector, delivery = phases
    assert [True] * 4 == [each.is_clean for each in (quiet, restarts, reloads, delivery)]
    assert 0 == reloads.closed
    assert (0, 0, 0) == (collector.refused, collector.lost, delivery.lost)
    assert all("replaced after" in each.notes[0] for each in (collector, delivery))
