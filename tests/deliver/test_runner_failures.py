"""How a runner logs failures, and continues after them."""

from __future__ import annotations

import sqlite3

import pytest
from structlog.testing import capture_logs

from pixelfast.backoff import Backoff
from pixelfast.deliver.outcomes import Accepted, Retry
from pixelfast.deliver.store import Changes, Store
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import FakeSender, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until


def test_failures_are_logged_once_for_each_reason_and_their_end_is_logged(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("a"), Retry("a"), Retry("b"), Retry("b"), Retry("a")])
        runner = make_runner(data, sender)
        feed.write(event(0))
        with capture_logs() as logs:
            async with running(runner):
                await sender.has(1)
                await until(lambda: runner.counted.get("delivered"))
        found = [(each["event"], each.get("reason")) for each in logs]
        assert [
            ("delivery_failed", "a"),
            ("delivery_failed", "b"),
            ("destination_recovered", None),
        ] == (found)
        assert (5, "") == (runner.counted["failures"], runner.last_error)

    run(main())


def test_the_last_error_is_reported_until_a_success(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("status 503")] * 10**5)
        hand = HandClock(a_look_s=1e-6)
        runner = make_runner(data, sender, clock=hand.clock)
        feed.write(event(0), received_ms=int(hand.now_s * 1000) - 60_000)
        async with running(runner):
            await until(lambda: runner.last_error)
            assert "status 503" == runner.last_error
            assert 60.0 == pytest.approx(runner.lag_s, abs=1.0)
            sender.script.clear()
            await sender.has(1)
            await until(lambda: not runner.last_error)
            await until(lambda: runner.lag_s == 0.0)

    run(main())


def test_the_pause_is_short_again_after_a_success(data: DataDir, feed: Feed) -> None:
    waits: list[float] = []

    class Noted(Backoff):
        def next_s(self, at_least_s: float = 0.0) -> float:
            waits.append(super().next_s(at_least_s))
            return waits[-1]

    async def main() -> None:
        no = Retry("no")
        sender = FakeSender([no, no, no, no, Accepted(), no, no])
        feed.write(*map(event, range(10)))
        backoff = Noted(0.001, 0.004, random=lambda: 1.0)
        async with running(make_runner(data, sender, backoff=backoff)):
            await sender.has(10)

    run(main())
    assert [0.001, 0.002, 0.004, 0.004, 0.001, 0.002] == waits


def test_a_failed_commit_ends_the_run_and_the_batch_is_retried(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was accepted but not recorded is repeated rather than lost."""
    commit = Store.commit

    def fail(store: Store, changes: Changes) -> None:
        if changes.ended:
            raise sqlite3.OperationalError("database or disk is full")
        commit(store, changes)

    async def main() -> None:
        sender = FakeSender()
        feed.write(*map(event, range(3)))
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", fail)
            with pytest.raises(sqlite3.OperationalError):
                await make_runner(data, sender).run()
        assert 1 == sender.closed
        async with running(make_runner(data, sender)):
            await sender.has(6)
        assert [0, 1, 2] * 2 == sender.numbers

    run(main())
