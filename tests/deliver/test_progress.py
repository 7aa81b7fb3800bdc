"""The figures of a destination whose runner fails: totals never decrease, and are never 0."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

import msgspec

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.engine import register_destinations
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry
from pixelfast.spool import DataDir, Position
from pixelfast.spool.format import SEGMENT_HEADER_BYTES
from pixelfast.spool.highwater import HighWater, write_high_water
from tests.deliver.runners import (
    QUICK,
    FakeSender,
    check_sum,
    counters_on_disk,
    make_engine,
    running,
    settings,
)
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until


def broken(data: DataDir, change: str) -> sqlite3.Connection:
    """Make one kind of change to the state of a destination fail until `repair`."""
    path = data.destination_dir("hook") / "state.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"CREATE TRIGGER broken BEFORE {change} ON plan BEGIN SELECT RAISE(FAIL, 'no'); END")
    return db


def repair(db: sqlite3.Connection) -> None:
    db.execute("DROP TRIGGER broken")
    db.close()


def test_a_destination_whose_state_cannot_be_written_is_failing_with_correct_figures(
    data: DataDir, feed: Feed
) -> None:
    """Its state becomes read-only, as on a remounted disk, and then writable again."""

    async def main() -> None:
        sender = FakeSender()
        engine = make_engine(data, {"hook": sender})
        runner = engine.runners[0]

        def told() -> dict[str, object]:
            return dict(engine.stats()["destinations"]["hook"])

        async with running(engine):
            feed.write(*map(event, range(5)))
            await until(lambda: runner.counted.get("delivered") == 5)  # on the disk
            db = broken(data, "INSERT")
            feed.write(*map(event, range(5, 12)))
            await until(lambda: told()["state"] == "failing" and told().get("pending") == 7)
            assert (5, "no") == (told()["delivered"], told()["last_error"])
            assert not engine.stats()["is_ready"]
            await until(lambda: float(str(told()["lag_s"])) > 0)
            repair(db)
            await until(lambda: told()["state"] == "healthy" and told().get("pending") == 0)
            assert 12 == told()["delivered"]
            check_sum(told())
        assert not runner.has_failed

    run(main())


def test_totals_do_not_decrease_when_a_transaction_fails(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        db = None

        def judge(_: Batch) -> Outcome:
            nonlocal db
            db = db or broken(data, "DELETE")  # deliveries cannot be recorded from now on
            return Accepted()

        engine = make_engine(data, {"hook": FakeSender(judge=judge)})
        seen: list[int] = []

        def is_delivered(count: int, state: str) -> bool:
            told = engine.stats()["destinations"]["hook"]
            if "delivered" in told:  # it is left out while the state cannot be read
                seen.append(told["delivered"])
            return told.get("delivered") == count and told["state"] == state

        async with running(engine):
            feed.write(*map(event, range(5)))
            await until(lambda: is_delivered(0, "failing"))
            assert db is not None
            repair(db)
            await until(lambda: is_delivered(5, "healthy"))
        assert sorted(seen) == seen

    run(main())


def test_totals_are_those_that_a_crash_does_not_take_back(data: DataDir, feed: Feed) -> None:
    """Prometheus would mistake a smaller total for one that was counted again from 0."""
    long_intervals = dataclasses.replace(QUICK, settled_s=600.0)

    async def main() -> None:
        sender = FakeSender()
        engine = make_engine(data, {"hook": sender}, timings=long_intervals)
        async with running(engine):
            feed.write(*map(event, range(5)))
            await sender.has(5)
            await until(lambda: engine.reclaimer.pending_bytes.get("hook", 0) > 0)
            await until(lambda: not engine.stats()["destinations"]["hook"]["under_way"])
            told = engine.stats()["destinations"]["hook"]
            assert (0, 0, 5, 5) == tuple(
                told[each] for each in ("delivered", "batches", "pending", "stored")
            )
            check_sum(told)
            assert "delivered" not in counters_on_disk(data, "hook")
        assert 5 == counters_on_disk(data, "hook")["delivered"]

    run(main())


def test_pending_bytes_are_those_of_the_spool_after_the_cursor(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        is_down = True
        down = FakeSender(judge=lambda _: Retry("status 503") if is_down else Accepted())
        engine = make_engine(data, {"hook": down, "other": FakeSender()})

        def pending(name: str) -> int | None:
            return engine.stats()["destinations"][name].get("pending_bytes")

        assert pending("hook") is None  # not determined yet
        async with running(engine):
            await until(lambda: pending("hook") == 0)
            feed.write(*map(event, range(5)))
            stored = feed.position.offset - SEGMENT_HEADER_BYTES
            assert stored > 0
            await until(lambda: (pending("hook"), pending("other")) == (stored, 0))
            db = broken(data, "DELETE")
            is_down = False  # its runner fails, and the figure is read from the disk
            await until(lambda: engine.stats()["destinations"]["hook"]["state"] == "failing")
            assert stored == pending("hook")
            repair(db)
            await until(lambda: pending("hook") == 0)

    run(main())


def test_stored_and_pending_are_left_out_before_they_are_known(data: DataDir, feed: Feed) -> None:
    """Right after the start, the ends of the slots are not known yet."""
    feed.write(*map(event, range(5)))
    engine = make_engine(data, {"hook": FakeSender()})
    assert {"pending", "stored"}.isdisjoint(engine.stats()["destinations"]["hook"])

    async def main() -> None:
        seen = []
        async with running(engine):
            await until(lambda: seen.append(engine.stats()) or "stored" in told(seen[-1]))
            await until(lambda: told(engine.stats()).get("pending") == 0)
        assert all(told(each).get("stored", 5) == 5 for each in seen)

    def told(stats: dict[str, Any]) -> dict[str, Any]:
        return dict(stats["destinations"]["hook"])

    run(main())


def test_a_new_destination_does_not_count_the_events_of_removed_slots(
    data: DataDir, feed: Feed
) -> None:
    write_high_water(data, 5, HighWater(segment=3, next_number=60, end=Position(3, 4096)))

    async def main() -> None:
        plain = settings("hook")
        (hook,) = plain.destinations
        chosen = msgspec.structs.replace(
            plain, destinations=(msgspec.structs.replace(hook, start="earliest"),)
        )
        register_destinations(chosen, data)
        engine = make_engine(data, {"hook": FakeSender()}, config=chosen)
        async with running(engine):
            feed.write(*map(event, range(5)))
            await until(lambda: engine.stats()["destinations"]["hook"].get("delivered") == 5)
            told = engine.stats()["destinations"]["hook"]
        assert (5, 0) == (told["stored"], told["pending"])
        check_sum(told)

    run(main())
