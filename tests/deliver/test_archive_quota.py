"""The disk space that an archive may use beside a spool and other users of the disk."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from pixelfast.backoff import Backoff
from pixelfast.config import Config, FileDestination, Spool
from pixelfast.deliver.archive.quota import DiskQuota, SpoolNeeds
from pixelfast.deliver.destinations import make_sender
from pixelfast.deliver.health import Health
from pixelfast.deliver.outcomes import Accepted, Retry, Waiting
from pixelfast.deliver.timing import Timings
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import FakeSender, make_engine, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event
from tests.spools import Feed
from tests.waiting import until

MIB = 2**20


def set_disk(monkeypatch: pytest.MonkeyPatch, size_mib: int, free_mib: int) -> None:
    """Simulate file systems of this size, with this much free space."""
    blocks = size_mib * MIB // 4096, free_mib * MIB // 4096
    disk = SimpleNamespace(f_frsize=4096, f_blocks=blocks[0], f_bavail=blocks[1])
    monkeypatch.setattr(os, "statvfs", lambda _: disk)


@pytest.mark.parametrize(
    ("size", "free", "used", "min_free", "spool_max", "share", "limit", "reason"),
    [
        # An empty disk: half of it.
        (1000, 1000, 0, 0, 0, 0.5, 500, "the archive has reached max_disk_share (50%)"),
        (1000, 1000, 0, 100, 200, 0.5, 500, "the archive has reached max_disk_share (50%)"),
        (1000, 600, 400, 100, 200, 0.9, 700, "the remaining disk space is reserved for the spool"),
        # No share: all but min_free, and the space of a small spool.
        (
            1000,
            1000,
            0,
            100,
            0,
            0.0,
            900,
            "no more than spool.min_free is free on the disk of the archive",
        ),
        (1000, 1000, 0, 100, 200, 0.0, 700, "the remaining disk space is reserved for the spool"),
        # Others use much: half of the rest, if the spool may use all of it.
        (
            1000,
            300,
            100,
            100,
            10_000,
            0.5,
            150,
            "the remaining disk space is reserved for the spool",
        ),
        # A tiny disk, and one with less free space than min_free.
        (16, 10, 2, 4, 10_000, 0.5, 4, "the remaining disk space is reserved for the spool"),
        (
            1000,
            50,
            100,
            200,
            10_000,
            0.5,
            -50,
            "no more than spool.min_free is free on the disk of the archive",
        ),
    ],
)
def test_an_archive_uses_its_share_and_leaves_space_for_the_spool(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    free: int,
    used: int,
    min_free: int,
    spool_max: int,
    share: float,
    limit: int,
    reason: str,
) -> None:
    data = DataDir.open(tmp_path)
    set_disk(monkeypatch, size, free)
    quota = DiskQuota(data, SpoolNeeds(min_free * MIB, spool_max * MIB), share)
    assert limit * MIB == quota.limit_bytes(tmp_path, used * MIB)
    left = (limit - used) * MIB
    assert "" == quota.shortage(tmp_path, used * MIB, left)
    assert reason == quota.shortage(tmp_path, used * MIB, left + 1)


def test_a_file_system_without_a_size_does_not_limit_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir.open(tmp_path)
    set_disk(monkeypatch, 0, 0)
    quota = DiskQuota(data, SpoolNeeds(512 * MIB, 20_000 * MIB), 0.5)
    assert "" == quota.shortage(tmp_path, 100 * MIB, MIB)


def test_space_that_the_spool_already_uses_is_not_reserved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a spool that fills while the archive waits would reduce the limit further."""
    data = DataDir.open(tmp_path)
    slot = data.slot_dir(0)
    slot.mkdir(parents=True)
    (slot / "0000000000000001.seg").write_bytes(bytes(3 * MIB))
    quota = DiskQuota(data, SpoolNeeds(0, 10 * MIB), 0.0)
    set_disk(monkeypatch, 100, 50 - 3)
    assert 40 * MIB == quota.limit_bytes(tmp_path, 0)
    assert "" == quota.shortage(tmp_path, 39 * MIB, 0)


def test_an_archive_on_another_disk_reserves_no_space_for_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir.open(tmp_path)
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm to be a file system of its own")
    set_disk(monkeypatch, 1000, 1000)
    quota = DiskQuota(data, SpoolNeeds(100 * MIB, 10_000 * MIB), 0.8)
    assert 800 * MIB == quota.limit_bytes(other, 0)
    assert 450 * MIB == quota.limit_bytes(tmp_path, 0)


def test_the_needs_of_the_spool_include_segments_created_ahead() -> None:
    spool = Spool(max_bytes=100 * MIB, segment_bytes=4 * MIB, min_free=7)
    assert SpoolNeeds(7, 124 * MIB) == SpoolNeeds.of(spool, workers=3)


# --- waiting -------------------------------------------------------------------------------------


def test_a_destination_without_disk_space_waits_and_no_event_becomes_a_dead_letter(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender([Waiting("it is full")] * 10**6)
        sender.may_send_ahead = False
        runner = make_runner(
            data, sender, retry_for_s=0.001
        )  # any other failure would make dead letters
        feed.write(*map(event, range(3)), received_ms=1)
        with capture_logs() as logs:
            async with running(runner):
                await until(lambda: len(sender.sent) > 20)
                figures = runner.stats({0: 3})
                assert ("waiting", "it is full") == (figures["state"], figures["last_error"])
                assert (0, 0, 3) == (figures["dead"], figures["failures"], figures["pending"])
                sender.script.clear()
                await sender.has(3)
                await until(lambda: runner.stats({0: 3})["state"] == "healthy")
        assert [0, 1, 2] == sender.numbers
        assert 1 == len(set(sender.ids)), "the batch keeps its id"
        assert ["destination_waiting", "destination_space_freed"] == [
            each["event"] for each in logs
        ]

    run(main())


def health(clock: HandClock) -> Health:
    return Health("archive", Backoff(0.5, 60.0), 1, Timings(), clock.clock)


def test_waiting_that_ends_and_returns_is_logged_once_a_minute() -> None:
    clock = HandClock()
    own = health(clock)
    with capture_logs() as logs:
        for _ in range(100):
            for outcome in (Waiting("it is full"), Waiting("it is full"), Accepted()):
                own.note(outcome, 1, clock.now_s, 1)
                clock.advance(1.0)
    told = [each["event"] for each in logs]
    assert 5 == told.count("destination_waiting") == told.count("destination_space_freed")


def test_waiting_that_returns_within_a_minute_is_logged_if_it_lasts() -> None:
    clock = HandClock()
    own = health(clock)
    own.note(Waiting("it is full"), 1, clock.now_s, 1)
    own.note(Accepted(), 1, clock.now_s, 1)
    with capture_logs() as logs:
        for _ in range(200):
            clock.advance(1.0)
            own.note(Waiting("it is full"), 1, clock.now_s, 1)
    assert ["destination_waiting"] == [each["event"] for each in logs]


def test_another_failure_ends_the_waiting() -> None:
    clock = HandClock()
    own = health(clock)
    own.note(Waiting("it is full"), 1, clock.now_s, 1)
    assert "waiting" == own.breaker.state
    clock.advance(1.0)
    own.note(Retry("Input/output error"), 1, clock.now_s, 1)
    assert ("healthy", "Input/output error") == (own.breaker.state, own.breaker.reason)


def test_a_file_destination_waits_for_disk_space_and_continues(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = make_sender(FileDestination(name="archive"), data, needs=SpoolNeeds(0, 0))

    async def main() -> None:
        await sender.open({})
        set_disk(monkeypatch, 1000, 1000)
        assert isinstance(await sender.send(batch_of([event(1)])), Accepted)
        set_disk(monkeypatch, 1000, 0)
        reason = "no more than spool.min_free is free on the disk of the archive"
        for _ in range(2):
            assert Waiting(reason) == await sender.send(batch_of([event(2)]))
        set_disk(monkeypatch, 1000, 1000)
        assert isinstance(await sender.send(batch_of([event(2)])), Accepted)
        await sender.close()

    run(main())


def test_file_destinations_of_an_engine_know_the_needs_of_the_spool(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with no more free space than min_free."""
    config = Config(spool=Spool(min_free=200 * MIB))
    set_disk(monkeypatch, 1000, 150)

    async def main() -> None:
        engine = make_engine(data, config=config)
        feed.write(event(1))
        async with running(engine):
            own = engine.runners[0]
            await until(lambda: own.stats(None)["state"] == "waiting")
            set_disk(monkeypatch, 1000, 900)
            await until(lambda: own.counted.get("delivered"))

    run(main())
