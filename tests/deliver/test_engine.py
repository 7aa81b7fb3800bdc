"""Several destinations: none waits for another; sources, failures, two engines, totals."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from pixelfast.config import Config
from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.store import Changes, Store
from pixelfast.spool import DataDir, Position
from tests.deliver.clocks import HandClock
from tests.deliver.runners import (
    FakeSender,
    counters_on_disk,
    cursors_on_disk,
    make_engine,
    running,
    settings,
    source,
)
from tests.deliver.running import run
from tests.deliver.spools import event, numbers_in
from tests.spools import Feed
from tests.waiting import until


def test_a_destination_that_is_down_delays_no_other(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        up, down, hung = FakeSender(), FakeSender([Retry("down")] * 10**6), FakeSender()
        hung.gate.clear()
        engine = make_engine(data, {"up": up, "down": down, "hung": hung})
        async with running(engine):
            for n in range(50):
                feed.write(event(n))
            await up.has(50)
            assert ([], []) == (down.accepted, hung.accepted)
            down.script.clear()
            await down.has(50)
            hung.gate.set()
            await hung.has(50)
        for sender in (up, down, hung):
            assert list(range(50)) == sender.numbers

    run(main())


def test_events_of_a_source_are_delivered_to_its_destinations(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        one, two = FakeSender(), FakeSender()
        sources = (source("web", "one"), source("mail"), source("app", "one", "two"))
        engine = make_engine(data, {"one": one, "two": two}, sources)
        async with running(engine):
            for n in range(30):
                feed.write(event(n), source=sources[n % 3].name)
            await until(lambda: all(r.cursors == {0: feed.position} for r in engine.runners))
        assert list(range(30)) == one.numbers
        assert [n for n in range(30) if n % 3] == two.numbers

    run(main())


def test_events_of_a_removed_source_are_delivered(data: DataDir, feed: Feed) -> None:
    """They were accepted with status 200, so removing the source must not lose them."""

    async def main() -> None:
        sender, other = FakeSender(), FakeSender()
        sources = (source("web"), source("mail", "other"))
        feed.write(event(1), source="gone")
        feed.write(event(2), source="web")
        engine = make_engine(data, {"hook": sender, "other": other}, sources)
        async with running(engine):
            await until(lambda: all(r.cursors == {0: feed.position} for r in engine.runners))
        assert [1, 2] == sender.numbers

    run(main())


def test_every_written_event_is_delivered_or_filtered(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        count = 0
        sources = (source("web", "one"), source("mail", "two"), source("app"))
        for start in range(3):
            senders = {
                "one": FakeSender([Retry("no"), ZeroDivisionError()]),
                "two": FakeSender([Retry("no")] * start),
            }
            engine = make_engine(data, senders, sources)
            async with running(engine):
                for n in range(40):
                    feed.write(*[event(n)] * (n % 4 + 1), source=sources[n % 3].name)
                    count += n % 4 + 1
                await until(
                    lambda e=engine: all(r.cursors == {0: feed.position} for r in e.runners)
                )
        for name in ("one", "two"):
            counted = counters_on_disk(data, name)
            assert count == counted["delivered"] + counted["filtered"]

    run(main())


def test_a_sender_that_raises_is_restarted_without_losing_events(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        bad = FakeSender([ZeroDivisionError(), Retry("no"), RuntimeError("again")])
        good = FakeSender()
        engine = make_engine(data, {"bad": bad, "good": good})
        with capture_logs() as logs:
            async with running(engine):
                feed.write(*map(event, range(12)))
                await good.has(12)
                await bad.has(12)
        assert list(range(12)) == bad.numbers
        assert list(range(12)) == good.numbers
        failed = [each for each in logs if each["event"] == "destination_failed"]
        traced = [(each["destination"], type(each["exc_info"])) for each in failed]
        assert [("bad", ZeroDivisionError), ("bad", RuntimeError)] == traced
        assert (3, 3, 1) == (len(bad.memories), bad.closed, good.closed)

    run(main())


def test_a_sender_that_cannot_be_opened_is_retried(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.open_errors = [PermissionError(13, "Permission denied"), OSError(28, "No space")]
        async with running(make_engine(data, {"hook": sender})):
            feed.write(event(1))
            await sender.has(1)
        assert (3, 3) == (len(sender.memories), sender.closed)

    run(main())


def test_a_destination_whose_runner_fails_has_the_state_failing(data: DataDir, feed: Feed) -> None:
    """Otherwise the status would show a destination as healthy that delivers nothing."""

    async def main() -> None:
        sender = FakeSender()
        sender.open_errors = [PermissionError(13, "Permission denied") for _ in range(10**5)]
        engine = make_engine(data, {"hook": sender})
        async with running(engine):
            await until(lambda: len(sender.memories) > 2)
            assert "Permission denied" in engine.stats()["destinations"]["hook"]["last_error"]
            sender.open_errors.clear()
            feed.write(event(1))
            await sender.has(1)
            await until(lambda: engine.stats()["destinations"]["hook"]["last_error"] == "")

    run(main())


def test_stopping_ends_an_engine_whose_senders_fail(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([ZeroDivisionError() for _ in range(10**5)])
        feed.write(event(1))
        async with running(make_engine(data, {"hook": sender})):
            await until(lambda: len(sender.sent) > 2)

    run(main())


def test_the_second_engine_on_a_data_directory_waits_for_the_first(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        first, second = FakeSender(), FakeSender()
        hand = HandClock()
        waiting = make_engine(data, {"hook": second}, clock=hand.clock)
        with capture_logs() as logs:

            def logs_of(name: str) -> int:
                return len([each for each in logs if each["event"] == name])

            async with running(make_engine(data, {"hook": first})):
                feed.write(*map(event, range(5)))
                await first.has(5)
                async with running(waiting):
                    await until(lambda: logs_of("destination_locked"))
                    assert not waiting.stats()["is_ready"]
                    feed.write(*map(event, range(5, 10)))
                    await first.has(10)
                    await hand.looks(100)
                    assert 1 == logs_of("destination_locked")
                    hand.advance(60.0)
                    await until(lambda: logs_of("destination_locked") == 2)
            assert [] == second.sent, "it was stopped while it waited"
            waiting = make_engine(data, {"hook": second})
            async with running(waiting):
                feed.write(*map(event, range(10, 15)))
                await second.has(5)
                assert waiting.stats()["is_ready"]
        assert list(range(15)) == first.numbers + second.numbers

    run(main())


def test_the_second_engine_takes_over_when_the_first_has_ended(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        first, second = FakeSender(), FakeSender()
        async with AsyncExitStack() as later:
            async with running(make_engine(data, {"hook": first})):
                feed.write(*map(event, range(5)))
                await first.has(5)
                with capture_logs() as logs:
                    engine = make_engine(data, {"hook": second})
                    await later.enter_async_context(running(engine))
                    await until(lambda: [x for x in logs if x["event"] == "destination_locked"])
            feed.write(*map(event, range(5, 10)))
            await second.has(5)
        assert list(range(10)) == first.numbers + second.numbers

    run(main())


def test_a_damaged_state_is_renamed_and_delivery_restarts(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        feed.write(*map(event, range(4)))
        for expected in ([0, 1, 2, 3], [0, 1, 2, 3, 4]):
            sender = FakeSender()
            async with running(make_engine(data, {"hook": sender})):
                await sender.has(len(expected))
            assert expected == sender.numbers
            (data.destination_dir("hook") / "state.db").write_bytes(b"damaged" * 1000)
            feed.write(event(4))

    run(main())


def test_new_slots_are_found_while_the_engine_runs(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender()
        async with running(make_engine(data, {"hook": sender})):
            feed.write(event(1))
            await sender.has(1)
            with Feed(data, 9) as other:
                other.write(event(2))
                await sender.has(2)
        assert {0, 9} == set(cursors_on_disk(data, "hook"))

    run(main())


def test_figures_are_kept_for_each_destination(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        one, two = FakeSender(), FakeSender([Retry("status 500")])
        sources = (source("web"), source("mail", "one"))
        hand = HandClock(a_look_s=0.0001)
        engine = make_engine(data, {"one": one, "two": two}, sources, clock=hand.clock)
        assert not engine.stats()["is_ready"]
        feed.write(*map(event, range(7)))
        feed.write(event(7), source="mail")
        async with running(engine):
            await until(lambda: all(r.cursors == {0: feed.position} for r in engine.runners))
            await until(lambda: engine.reclaimer.pending_bytes == {"one": 0, "two": 0})
            await until(lambda: all(r.counted.get("batches") == 2 for r in engine.runners))
            stats = engine.stats()
        assert stats["is_ready"]
        told = stats["destinations"]
        for each in told.values():
            assert hand.now_s == pytest.approx(each.pop("last_success_s"), abs=60.0)
        figures = {
            "stored": 8,
            "pending": 0,
            "state": "healthy",
            "under_way": 0,
            "concurrency": 1,
            "lag_s": 0.0,
            "last_error": "",
            "dead_letters": {},
            "batches": 2,
            "pending_bytes": 0,
            **dict.fromkeys(("dead", "filtered", "expired", "missing", "repeated", "failures"), 0),
        }
        assert {
            "one": {**figures, "delivered": 8},
            "two": {**figures, "delivered": 7, "failures": 1, "filtered": 1},
        } == told
        attempts = stats["totals"]["attempts"]
        for name, accepted, retry in (("one", 2, 0), ("two", 2, 1)):
            results = {
                "accepted": accepted,
                "retry": retry,
                "partial": 0,
                "rejected": 0,
                "held": 0,
                "waiting": 0,
            }
            assert results == attempts[name]["results"]
            assert accepted + retry == sum(attempts[name]["durations"]["counts"])

    run(main())


def test_an_engine_without_a_destination_waits_until_a_reload_gives_it_one(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender()
        engine = make_engine(data, {"hook": sender})
        async with running(engine):
            await engine.reload(settings("hook"), [])
            feed.write(event(0))
            await engine.reload(settings("hook"), ["hook"])
            await sender.has(1)

    run(main())


def test_the_default_destination_is_a_file_in_the_data_directory(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        async with running(make_engine(data, config=Config())):
            feed.write(*map(event, range(5)))
            await until(lambda: len(numbers_in(data.path / "events" / "archive")) == 5)
        assert list(range(5)) == numbers_in(data.path / "events" / "archive")

    run(main())


def test_a_cursor_beyond_the_data_loses_no_event(data: DataDir, feed: Feed) -> None:
    """An operator deleted the slot, so its numbers restarted below the cursor."""
    store = Store(data.destination_dir("hook") / "state.db")
    store.commit(Changes(after={0: Position(1000, 64)}))
    store.close()

    async def main() -> None:
        sender = FakeSender()
        for n in range(100):
            feed.write(event(n))
        engine = make_engine(data, {"hook": sender})
        async with running(engine):
            await sender.has(100)
        assert list(range(100)) == sender.numbers

    run(main(), bound_s=3.0)
