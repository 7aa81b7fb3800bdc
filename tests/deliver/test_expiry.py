"""The oldest events above a limit expire and are counted, and only those."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from structlog.testing import capture_logs

from pixelfast.config import Destination, Spool
from pixelfast.deliver.engine import Engine, register_destinations
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry
from pixelfast.deliver.sender import Sender
from pixelfast.spool import DataDir, Position
from tests.deliver.clocks import HandClock
from tests.deliver.runners import (
    QUICK,
    FakeSender,
    check_sum,
    config,
    make_engine,
    make_runner,
    reclaimed,
    running,
)
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until

SEGMENT_BYTES = 8192
DOWN = [Retry("down")] * 10**6


@pytest.fixture
def segment_bytes() -> int:
    return SEGMENT_BYTES


def figures(engine: Engine, name: str) -> dict[str, int]:
    found = engine.stats()["destinations"][name]
    assert isinstance(found, dict)
    return found


def write(feed: Feed, count: int) -> None:
    for n in range(count):
        feed.write(event(n, padding=400))


def test_only_a_destination_above_its_maximum_lag_loses_its_oldest_events(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        senders = {"slow": FakeSender(list(DOWN)), "sure": FakeSender(list(DOWN))}
        chosen = config(slow={"max_lag_bytes": 3 * SEGMENT_BYTES}, sure={})
        engine = make_engine(data, senders, config=chosen)
        async with running(engine):
            write(feed, 200)
            await until(lambda: figures(engine, "slow").get("expired", 0) > 0)
            await until(lambda: figures(engine, "slow")["pending"] <= 3 * SEGMENT_BYTES // 400)
            for name in senders:
                await until(lambda name=name: figures(engine, name).get("stored") == 200)
                check_sum(figures(engine, name))
            for sender in senders.values():
                sender.script.clear()
            await senders["sure"].has(200)
            await until(lambda: figures(engine, "slow")["pending"] == 0)
            check_sum(figures(engine, "slow"))
            assert 200 == figures(engine, "slow")["delivered"] + figures(engine, "slow")["expired"]
        assert list(range(200)) == senders["sure"].numbers
        kept = [n for n in senders["slow"].numbers if n >= 30]  # batches under way were delivered
        assert list(range(200))[-len(kept) :] == kept, "the newest are kept"
        assert len(kept) >= 2 * SEGMENT_BYTES // 500

    run(main())


@pytest.mark.parametrize("outcome", [Accepted(), Retry("down")])
@pytest.mark.parametrize("others", ["unread", "being written", "queued"])
def test_expired_batches_are_not_sent_whatever_state_they_are_in(
    data: DataDir, feed: Feed, outcome: Outcome, others: str
) -> None:
    """One batch is under way when it expires, together with another one."""
    timings = dataclasses.replace(QUICK, write_s=0.2 if others == "being written" else 0.001)

    async def main() -> None:
        sender = FakeSender([outcome])
        sender.gate.clear()
        runner = make_runner(data, sender, timings=timings)
        feed.write(*map(event, range(5)))
        async with running(runner):
            await until(lambda: sender.under_way == 1)
            feed.write(*map(event, range(5, 10)))
            if others == "queued":
                await until(lambda: runner.queue.batches == 1)
            elif others == "being written":
                await until(lambda: runner.state.planned_events == 10)  # type: ignore[union-attr]
            feed.roll()
            feed.write(event(10))
            runner.expire({0: Position(feed.position.segment)})
            sender.gate.set()
            await until(lambda: runner.cursors == {0: feed.position})
            figures = runner.stats({0: 11})
            check_sum(figures)
            assert (5 if outcome == Accepted() else 10) == figures["expired"]
        assert [[event(n) for n in range(5)], [event(10)]] == sender.sent

    run(main())


def test_events_of_an_optional_destination_expire_before_the_spool_is_full(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        senders = {"extra": FakeSender(list(DOWN)), "sure": FakeSender()}
        chosen = config(
            Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0), extra={"required": False}, sure={}
        )
        engine = make_engine(data, senders, config=chosen)
        async with running(engine):
            write(feed, 300)
            await senders["sure"].has(300)
            await until(lambda: len(data.segments(0)) <= 10)
            await until(lambda: figures(engine, "extra").get("expired", 0) > 0)
            check_sum(figures(engine, "extra"))
            assert len(data.segments(0)) >= 8, "no more than is needed"
        assert list(range(300)) == senders["sure"].numbers

    run(main())


def test_a_required_destination_keeps_a_full_spool_full(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        senders = {"sure": FakeSender(list(DOWN))}
        chosen = config(Spool(max_bytes=5 * SEGMENT_BYTES, min_free=0), sure={})
        engine = make_engine(data, senders, config=chosen)
        async with running(engine):
            write(feed, 200)
            await until(lambda: figures(engine, "sure").get("stored") == 200)
            await reclaimed(engine)
            assert figures(engine, "sure").get("expired", 0) == 0
            senders["sure"].script.clear()
            await senders["sure"].has(200)

    run(main())


def test_drop_oldest_expires_events_of_all_destinations(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        senders = {"one": FakeSender(list(DOWN)), "two": FakeSender(list(DOWN))}
        spool = Spool(max_bytes=8 * SEGMENT_BYTES, min_free=0, on_full="drop_oldest")
        engine = make_engine(data, senders, config=config(spool, one={}, two={}))
        async with running(engine):
            write(feed, 300)
            await until(lambda: len(data.segments(0)) <= 8)
            await reclaimed(engine)
            assert len(data.segments(0)) >= 6, "no more than is needed"
            for name, sender in senders.items():
                check_sum(figures(engine, name))
                sender.script.clear()
            for name, sender in senders.items():
                await until(lambda name=name: figures(engine, name)["pending"] == 0)
                assert sender.numbers[-1] == 299
                assert 300 == figures(engine, name)["expired"] + len(sender.numbers)

    run(main())


def test_a_new_destination_starts_at_the_newest_event_or_at_the_earliest_kept(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        write(feed, 30)
        chosen = config(newest={}, earliest={"start": "earliest"})
        register_destinations(chosen, data)
        for n in range(30, 50):
            feed.write(event(n))
        senders = {"newest": FakeSender(), "earliest": FakeSender()}
        engine = make_engine(data, senders, config=chosen)
        async with running(engine):
            await senders["earliest"].has(50)
            await senders["newest"].has(20)
            for name, stored in (("newest", 20), ("earliest", 50)):
                await until(lambda n=name, s=stored: figures(engine, n).get("stored") == s)
                await until(lambda n=name: figures(engine, n)["pending"] == 0)
                check_sum(figures(engine, name))
        assert list(range(30, 50)) == senders["newest"].numbers
        assert list(range(50)) == senders["earliest"].numbers

    run(main())


def test_a_destination_that_lost_its_state_gets_all_stored_events(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        chosen = config(hook={})
        register_destinations(chosen, data)
        write(feed, 10)
        (data.destination_dir("hook") / "state.db").unlink()
        register_destinations(chosen, data)
        sender = FakeSender()
        async with running(make_engine(data, {"hook": sender}, config=chosen)):
            await sender.has(10)

    run(main())


def test_a_removed_destination_keeps_its_events_for_a_day(data: DataDir, feed: Feed) -> None:
    hand = HandClock()

    async def main() -> None:
        senders = {"stays": FakeSender(), "goes": FakeSender(list(DOWN))}
        engine = make_engine(data, senders)
        async with running(engine):
            write(feed, 100)
            await senders["stays"].has(100)
        before = data.segments(0)
        for path in data.destination_dir("goes").iterdir():
            os.utime(path, (hand.now_s, hand.now_s))
        engine = make_engine(data, {"stays": FakeSender()}, clock=hand.clock)
        async with running(engine):
            await reclaimed(engine)
            assert before == data.segments(0)
            hand.advance(86_399.0)
            await reclaimed(engine)
            assert before == data.segments(0)
            hand.advance(2.0)
            await until(lambda: len(data.segments(0)) == 1)

    run(main())


def test_a_removed_destination_keeps_its_events_while_its_state_cannot_be_read(
    data: DataDir, feed: Feed
) -> None:
    """Another process may be writing the state, because it has not applied the settings yet."""

    async def main() -> None:
        senders = {"stays": FakeSender(), "goes": FakeSender(list(DOWN))}
        async with running(make_engine(data, senders)):
            write(feed, 100)
            await senders["stays"].has(100)
        before = data.segments(0)
        path = data.destination_dir("goes") / "state.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            engine = make_engine(data, {"stays": FakeSender()})
            async with running(engine):
                await reclaimed(engine)
                assert before == data.segments(0)
        path.write_bytes(b"damaged")
        engine = make_engine(data, {"stays": FakeSender()})
        async with running(engine):
            await reclaimed(engine)
            assert before == data.segments(0)

    run(main())


def test_an_empty_directory_is_no_removed_destination(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender()
        engine = make_engine(data, {"hook": sender})
        (data.destination_dir("hook").parent / "empty").mkdir()
        (data.destination_dir("hook").parent / "file").touch()
        async with running(engine):
            write(feed, 100)
            await until(lambda: len(data.segments(0)) == 1)

    run(main())


def test_an_unexpected_error_does_not_end_retention(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        engine = make_engine(data, {"hook": FakeSender()})
        real, errors = engine.reclaimer.keep, [ValueError("a bug"), OSError("a disk")]

        async def keep() -> None:
            if errors:
                raise errors.pop(0)
            await real()

        monkeypatch.setattr(engine.reclaimer, "keep", keep)
        with capture_logs() as logs:
            async with running(engine):
                write(feed, 100)
                await until(lambda: len(data.segments(0)) == 1)
        told = [(each["error"], bool(each["exc_info"])) for each in logs if "error" in each]
        assert [("a bug", True), ("a disk", False)] == told

    run(main())


def test_a_running_destination_is_recorded_as_in_use(data: DataDir) -> None:
    """Its events are kept for a day after the last record if it is removed later."""
    hand = HandClock()

    async def main() -> None:
        engine = make_engine(data, {"hook": FakeSender()}, clock=hand.clock)
        lock = data.destination_dir("hook") / "lock"
        async with running(engine):
            await reclaimed(engine)
            os.utime(lock, (0, 0))
            hand.advance(599.0)
            await reclaimed(engine)
            assert 0 == lock.stat().st_mtime
            hand.advance(1.0)
            await until(lambda: lock.stat().st_mtime > 0)

    run(main())


def test_a_removed_destination_does_not_fill_the_spool(data: DataDir, feed: Feed) -> None:
    """An operator would not find out why all pixels are rejected."""

    async def main() -> None:
        senders = {"stays": FakeSender(), "goes": FakeSender(list(DOWN))}
        engine = make_engine(data, senders, config=config(stays={}, goes={}))
        async with running(engine):
            write(feed, 300)
            await senders["stays"].has(300)
        before = data.segments(0)
        spool = Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0)
        stays = FakeSender()
        with capture_logs() as logs:
            async with running(make_engine(data, {"stays": stays}, config=config(spool, stays={}))):
                await until(lambda: len(data.segments(0)) <= 10)
                assert len(data.segments(0)) >= 8, "no more than is needed"
                for first in range(300, 500, 20):
                    for n in range(first, first + 20):
                        feed.write(event(n, 300))
                    await stays.has(first - 280)
                    await until(lambda: len(data.segments(0)) <= 10)
        assert len(before) > 10
        event_name = "removed_destination_events_deleted"
        told = [each["destination"] for each in logs if each["event"] == event_name]
        assert ["goes"] == told

    run(main())


def test_a_destination_that_a_reload_removes_does_not_fill_the_spool(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        spool = Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0)
        senders = {"stays": FakeSender(), "goes": FakeSender(list(DOWN))}
        engine = make_engine(data, senders, config=config(spool, stays={}, goes={}))
        async with running(engine):
            write(feed, 300)
            await senders["stays"].has(300)
            assert len(data.segments(0)) > 15, "it is required"
            await engine.reload(config(spool, stays={}))
            await until(lambda: len(data.segments(0)) <= 10)
            assert len(data.segments(0)) >= 8, "no more than is needed"

    run(main())


@pytest.mark.parametrize(
    ("options", "max_segments", "min_segments"),
    [
        ({}, 1000, 15),  # it is required, so its events are kept
        ({"required": False}, 9, 8),
        ({"max_lag_bytes": 5 * SEGMENT_BYTES}, 6, 4),
    ],
)
@pytest.mark.parametrize("state", ["unusable", "failing"])
def test_a_destination_without_a_runner_keeps_events_as_its_settings_say(
    data: DataDir,
    feed: Feed,
    options: dict[str, Any],
    max_segments: int,
    min_segments: int,
    state: str,
) -> None:
    async def main() -> None:
        spool = Spool(max_bytes=10 * SEGMENT_BYTES, min_free=0)
        chosen = config(spool, bad=options, good={})
        register_destinations(chosen, data)
        good, bad = FakeSender(), FakeSender()
        bad.open_errors = [PermissionError("its folder is not ours")] * 10**4

        def make(destination: Destination, *_: object) -> Sender:
            if destination.name == "bad" and state == "unusable":
                raise ValueError("no such certificate")
            return bad if destination.name == "bad" else good

        engine = Engine(chosen, data, timings=QUICK, make_sender=make)
        async with running(engine):
            write(feed, 300)
            assert len(data.segments(0)) > 15
            await good.has(300)
            await until(lambda: len(data.segments(0)) <= max_segments)
            await reclaimed(engine)
            assert len(data.segments(0)) >= min_segments
            assert state == engine.stats()["destinations"]["bad"]["state"]

    run(main())
