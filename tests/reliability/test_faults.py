"""A disk that fails, fills up or becomes read-only under a live server."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.reliability.failpoints import die_at, die_starting
from tests.reliability.faults import QUICK_FAULTS, strike
from tests.reliability.power import loop_disk, tmpfs, why_no_loop_disk
from tests.reliability.rig import Rig
from tests.reliability.tracing import inject, synced_again, why_no_strace
from tests.waiting import wait_until


@pytest.fixture
def _needs_strace() -> None:
    if reason := why_no_strace():
        pytest.skip(reason)


@pytest.fixture
def _needs_mounts() -> None:
    if reason := why_no_loop_disk():
        pytest.skip(reason)


@pytest.mark.usefixtures("_needs_strace")
def test_failing_system_calls_lose_no_event(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1) as rig:
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(20)
        for fault in QUICK_FAULTS:
            strike(rig, fault)
        rig.assert_clean()


@pytest.mark.usefixtures("_needs_strace")
def test_a_disk_that_fails_often_does_not_fill_the_spool(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1, segment_bytes="1MiB", spool='max_bytes = "8MiB"') as rig:
        rig.start()
        rig.oracle.mood = "refuses"  # so that every segment is kept
        rig.oracle.resume()
        rig.oracle.until_acked(20)
        log = tmp_path / "strace.log"
        with inject(rig.pid("collector-0"), log, "fdatasync:error=EIO:when=10+10") as trace:
            trace.until_hit(8, 60)
        rig.oracle.until_acked(20)
        sizes = [each.stat().st_size for each in rig.data_dir.glob("shards/0/*.seg")]
        assert len(sizes) >= 8
        assert sum(sizes) < 4 * 2**20, "the failed segments are truncated"
        rig.oracle.mood = "takes"
        rig.assert_clean()


@pytest.mark.usefixtures("_needs_strace")
def test_a_crash_between_two_durable_steps_loses_no_event(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1) as rig:
        for step in (("collect", "link", 1), ("collect", "fsync", 2), ("collect", "fallocate", 1)):
            assert die_starting(rig, *step), f"{step} never came"
        rig.start()
        rig.oracle.resume()
        for step in (("collector-0", "fdatasync", 2), ("delivery", "fdatasync", 3)):
            die_at(rig, *step)
        for step in (("collector-0", "rename", 1), ("delivery", "rename", 1)):
            die_at(rig, *step)
        rig.assert_clean()


@pytest.mark.usefixtures("_needs_mounts")
def test_a_full_disk_is_reported_with_503_until_there_is_space(tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "small", "6m") as mount_point,
        Rig(
            tmp_path, data_dir=mount_point / "data", archive_dir=tmp_path / "archive", workers=1
        ) as rig,
    ):
        rig.start()
        rig.oracle.mood = "refuses"
        rig.oracle.pixels.pause_s = 0.0
        rig.oracle.resume()
        wait_until(lambda: rig.oracle.refused > 100, "the disk is full")
        assert set(rig.oracle.pixels.rejected) == {503}
        rig.oracle.mood = "takes"
        rig.oracle.pixels.pause_s = 0.01
        rig.oracle.until_acked(50, 40)
        rig.assert_clean()


def test_a_file_size_limit_is_reported_with_503_until_it_is_raised(tmp_path: Path) -> None:
    with Rig(tmp_path, workers=1) as rig:
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(20)
        pid = rig.pid("collector-0")
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, limits[1]))
        wait_until(lambda: rig.oracle.refused > 100, "the limit is felt")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        rig.oracle.until_acked(50)
        assert set(rig.oracle.pixels.rejected) == {503}
        assert pid == rig.pid("collector-0")
        rig.assert_clean()


@pytest.mark.usefixtures("_needs_mounts")
def test_a_disk_that_becomes_read_only_loses_no_event(tmp_path: Path) -> None:
    with loop_disk(tmp_path) as disk, Rig(tmp_path, data_dir=disk.mount_point / "data") as rig:
        disk.unmount()
        disk.mount("loop,errors=remount-ro")
        rig.start()
        rig.oracle.resume()
        rig.oracle.until_acked(100)
        with rig.oracle.deaf():
            disk.turn_read_only()
            rig.oracle.until_refused(100)  # earlier responses have arrived
        acked = rig.oracle.acked
        rig.oracle.until_refused(100)
        assert acked == rig.oracle.acked
        rig.crash()
        rig.oracle.pause()
        disk.repair()
        rig.start()
        rig.assert_clean()


def test_a_log_with_a_second_sync_is_seen() -> None:
    log = """\
7 fdatasync(9</d/1.seg>) = 0
7 fdatasync(9</d/1.seg> <unfinished ...>
8 fsync(10</d/2.seg>) = 0
7 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)
7 pwrite64(10</d/2.seg>, "PXF1", 4, 64) = 4
"""
    assert synced_again(log) == []
    assert len(synced_again(log + "7 fdatasync(9</d/1.seg>) = 0\n")) == 1
