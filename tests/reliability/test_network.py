"""Delivery over a faulty network: all events arrive, and no other destination is delayed."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.oracle import Ledger
from tests.reliability.proxy import WEATHERS, FaultProxy
from tests.reliability.rig import Rig
from tests.waiting import wait_until


def test_all_events_arrive_over_any_faulty_network(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1) as rig, FaultProxy(rig.oracle) as proxy:
        rig.url = proxy.url
        rig.start()
        rig.oracle.resume()
        for weather in WEATHERS:
            proxy.change(weather)
            wait_until(lambda weather=weather: proxy.seen[weather] > 0, weather)
            rig.oracle.until_acked(50)
        for _ in range(4):
            proxy.change_and_wait(*WEATHERS)
            rig.oracle.until_acked(100)
        proxy.change("fair")
        verdict = rig.assert_clean()
        assert all(proxy.seen.values())
        assert verdict.twice > 0  # responses were cut off after the batch was accepted


def test_a_black_hole_delays_no_other_destination(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1) as rig, FaultProxy(rig.oracle) as proxy:
        rig.url = proxy.url
        proxy.change("black-hole")
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(300)
        rig.oracle.pause()

        def is_in_files() -> bool:
            ledger = Ledger(rig.oracle.run)
            ledger.take_files(rig.archive_dir, rig.oracle.sent)
            return not rig.oracle.judge(ledger).missing

        wait_until(is_in_files, "the file destination has all of it", 5)
        assert rig.oracle.pending
        proxy.change("fair")
        rig.assert_clean()
