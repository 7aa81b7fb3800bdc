"""kill -9 of one delivery process does not disturb the others, and loses no event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.rig import Rig, is_gone
from tests.reliability.tracing import inject, why_no_strace
from tests.waiting import wait_until

DELIVERIES = ("delivery", "delivery-1")


def owners(rig: Rig) -> Iterator[str]:
    """Yield the delivery processes that hold the lock of retention: one, or none for a moment."""
    lock = rig.data_dir / "shards" / "retention.lock"
    for role in DELIVERIES:
        pid = rig.server.children().get(f"pf-{role}")
        if pid is not None and is_lock_held(pid, lock):
            yield role


def is_lock_held(pid: int, lock: Path) -> bool:
    """Return whether a process has a lock, from the kernel."""
    inode = f":{lock.stat().st_ino}" if lock.exists() else ":none"
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(fields[4] == str(pid) and fields[5].endswith(inode) for fields in held)


def test_each_delivery_process_is_restarted_without_disturbing_the_other(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1, deliveries=2) as rig:
        rig.start()
        rig.oracle.mood = "moody"
        rig.oracle.resume()
        rig.oracle.until_acked(50)
        for victim, other in (DELIVERIES, DELIVERIES[::-1]) * 2:
            before = rig.pid(other)
            rig.kill(victim)
            rig.oracle.until_acked(50)
            assert before == rig.pid(other)
            rig.pid(victim)
        rig.oracle.mood = "takes"
        rig.assert_clean()
        figures = rig.server.check_sums()
        assert {"receiver", "archive"} == figures.keys()
        for own in figures.values():
            assert (0, 0) == (own["missing_events"], own["expired_events"])
        assert 0 == rig.server.stop()


def test_another_process_owns_retention_when_its_owner_is_killed(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1, deliveries=2) as rig:
        rig.start()
        rig.oracle.resume()
        wait_until(lambda: len([*owners(rig)]) == 1, "an owner")
        for _ in range(2):
            (owner,) = owners(rig)
            (other,) = set(DELIVERIES) - {owner}
            rig.pid(other)
            rig.oracle.until_acked(20)
            rig.kill(owner)
            wait_until(lambda: len([*owners(rig)]) == 1, "an owner")
        rig.assert_clean()
        wait_until(lambda: rig.server.metrics()["pixelfast_removed_segments_total"], "removals")


@pytest.mark.skipif(bool(why_no_strace()), reason=why_no_strace())
def test_the_owner_of_retention_is_killed_while_it_renames_segments(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1, deliveries=2) as rig:
        rig.start()
        rig.oracle.resume()
        renames = 0
        for life in range(6):
            wait_until(lambda: len([*owners(rig)]) == 1, "an owner")
            (owner,) = owners(rig)
            pid = rig.pid(owner)
            log = tmp_path / f"strace-{life}.log"
            nth = 1 + life // 2
            with inject(pid, log, f"rename:signal=SIGKILL:when={nth}"):
                wait_until(lambda pid=pid: is_gone(pid), f"{owner} renames a segment")
            renames += ".spare" in log.read_text()
            rig.pid(owner)
        assert renames > 0
        rig.assert_clean()


def test_a_destination_that_accepts_nothing_pins_its_segments_only(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1, deliveries=2) as rig:
        rig.start()
        rig.oracle.mood = "refuses"
        rig.oracle.resume()
        rig.oracle.until_acked(600)
        rig.oracle.pause()
        slot = rig.data_dir / "shards" / "0"
        acked = rig.oracle.acked

        def delivered(name: str) -> float:
            return rig.server.metrics_of("pixelfast_delivered_events_total", destination=name)

        wait_until(lambda: delivered("archive") == acked, "the archive has everything")
        assert (slot / f"{1:016x}.seg").exists(), "the receiver needs the first segment"
        pids = [rig.pid(role) for role in DELIVERIES]
        rig.oracle.mood = "takes"
        wait_until(lambda: delivered("receiver") == acked, "the receiver has everything")
        wait_until(lambda: not (slot / f"{1:016x}.seg").exists(), "the first segment is reused")
        assert pids == [rig.pid(role) for role in DELIVERIES]
        rig.assert_clean()
