"""The runner of one destination: order, retries, cursors, memory, and stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.outcomes import Accepted, Held, Retry
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.store import Changes, Store
from pixelfast.deliver.tasks import Task
from pixelfast.spool import DataDir, Position
from tests.deliver.clocks import HandClock
from tests.deliver.runners import (
    AT_ONCE,
    QUICK,
    FakeSender,
    counters_on_disk,
    cursors_on_disk,
    make_runner,
    plans_on_disk,
    running,
)
from tests.deliver.running import run
from tests.deliver.spools import NO_LIMITS, cut_all, event, fill
from tests.spools import Feed
from tests.waiting import WAIT_S, until


def test_events_are_delivered_in_order_and_the_cursors_are_stored(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender()
        async with running(make_runner(data, sender)):
            for n in range(30):
                feed.write(event(n))
            await sender.has(30)
        assert list(range(30)) == sender.numbers
        assert {0: feed.position} == cursors_on_disk(data, "hook")
        assert 30 == counters_on_disk(data, "hook")["delivered"]

    run(main())


def test_a_failed_batch_is_retried_unchanged(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("busy"), Retry("busy", 0.001), Retry("down")])
        feed.write(*map(event, range(3)))
        async with running(make_runner(data, sender)):
            await until(lambda: sender.sent)
            feed.write(event(3))
            await sender.has(4)
        assert [sender.sent[0]] * 4 == sender.sent[:4]
        assert [0, 1, 2, 3] == sender.numbers

    run(main())


def test_a_cursor_does_not_move_before_its_batch_is_accepted(data: DataDir, feed: Feed) -> None:
    seen: list[dict[int, Position]] = []

    async def main() -> None:
        sender = FakeSender(
            [Retry("no"), Accepted(), Retry("no")],
            on_send=lambda _: seen.append(cursors_on_disk(data, "hook")),
        )
        feed.write(*map(event, range(10)))
        async with running(make_runner(data, sender)):
            await sender.has(10)

    run(main())
    first, half = {0: Position()}, {0: Position(1, 64, 5)}
    assert [first, first] == seen[:2]
    assert all(each in (first, half) for each in seen[2:])
    assert {0: feed.position} == cursors_on_disk(data, "hook")


def test_no_batch_is_sent_before_its_plan_is_stored(data: DataDir, feed: Feed) -> None:
    sent: list[str] = []

    def check(batch: Batch) -> None:
        assert batch.id in plans_on_disk(data, "hook")
        sent.append(batch.id)

    async def main() -> None:
        sender = FakeSender([Retry("no")], on_send=check)
        feed.write(*map(event, range(15)))
        async with running(make_runner(data, sender)):
            await sender.has(15)

    run(main())
    assert (4, 3) == (len(sent), len(set(sent)))
    assert [] == plans_on_disk(data, "hook")


def test_the_memory_of_a_sender_is_given_to_the_next_one(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        first = FakeSender([Accepted({"size": 1}), Accepted({"size": 2}), Accepted()])
        feed.write(*map(event, range(15)))
        async with running(make_runner(data, first)):
            await first.has(15)
        second = FakeSender()
        async with running(make_runner(data, second)):
            await until(lambda: second.memories)
        assert [[{}], [{"size": 2}]] == [first.memories, second.memories]

    run(main())


def test_a_restart_continues_where_the_last_run_stopped(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        found = []
        for start in range(0, 40, 7):
            sender = FakeSender()
            feed.write(*map(event, range(start, start + 7)))
            async with running(make_runner(data, sender)):
                await sender.has(7)
            found += sender.numbers
        assert list(range(42)) == found

    run(main())


def test_the_events_that_are_left_of_a_damaged_batch_are_sent_in_a_new_one(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        for n in range(3):
            feed.write(event(n))
        down = FakeSender([Retry("down")] * 1000)
        async with running(make_runner(data, down)):
            await until(lambda: down.sent)
        (planned,) = plans_on_disk(data, "hook")
        path = data.slot_dir(0) / f"{1:016x}.seg"
        path.write_bytes(path.read_bytes().replace(event(1), event(7)))
        sender = FakeSender()
        runner = make_runner(data, sender)
        async with running(runner):
            await sender.has(1)
        assert [0] == sender.numbers  # a segment is read up to a damaged frame
        assert planned not in sender.ids
        counted = counters_on_disk(data, "hook")
        assert (1, 2) == (counted["delivered"], counted["missing"])

    run(main())


def test_events_of_other_sources_move_the_cursor_without_a_send(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender()
        runner = make_runner(data, sender, frozenset({"web"}))
        for n in range(20):
            feed.write(event(n), source="web" if n % 4 == 0 else "mail")
        async with running(runner):
            await until(lambda: runner.cursors == {0: feed.position})
        assert [0, 4, 8, 12, 16] == sender.numbers
        counted = counters_on_disk(data, "hook")
        assert (5, 15) == (counted["delivered"], counted["filtered"])
        assert counted.items() <= runner.counted.items()

    run(main())


def test_sixty_four_settled_batches_are_written_at_once(data: DataDir, feed: Feed) -> None:
    timings = replace(QUICK, settled_s=1e9)

    async def main() -> None:
        sender = FakeSender(concurrency=64)
        sender.gate.clear()
        fill(feed, 0, 320)
        async with running(make_runner(data, sender, timings=timings)):
            await until(lambda: sender.under_way)
            await until(lambda: len(plans_on_disk(data, "hook")) == 64)
            sender.gate.set()
            await until(lambda: counters_on_disk(data, "hook").get("delivered") == 320)

    run(main())


def test_no_further_batch_is_cut_while_very_many_parts_of_one_wait(
    data: DataDir, feed: Feed
) -> None:
    hand = HandClock(a_look_s=0.001)
    parts = 4200
    fill(feed, 0, parts)
    (cut,) = cut_all(data, NO_LIMITS)
    whole = Task.of_cut(cut, 1, Selection(), "b1")
    planned = [part.plan for part in whole.divided([n] for n in range(parts))]
    store = Store(data.destination_dir("hook") / "state.db")
    store.commit(Changes(after=cut.after, numbers=cut.numbers, planned=planned))
    store.close()
    fill(feed, parts, parts + 100)

    async def main() -> None:
        sender = FakeSender(concurrency=2)
        sender.gate.clear()
        runner = make_runner(data, sender, clock=hand.clock)
        async with running(runner):
            await until(lambda: sender.under_way == 2)
            await hand.looks(200)
            assert parts == len(plans_on_disk(data, "hook"))
            runner.give_way()
            sender.gate.set()

    run(main())


def test_a_stop_sends_a_batch_that_is_neither_full_nor_due(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(limits=BatchLimits(max_events=5, max_bytes=10**6, max_age_s=1000.0))
        feed.write(*map(event, range(13)))
        async with running(make_runner(data, sender)):
            await sender.has(10)
        assert list(range(13)) == sender.numbers
        assert {0: feed.position} == cursors_on_disk(data, "hook")
        assert 1 == sender.closed

    run(main())


def test_a_stop_does_not_wait_for_a_destination_that_fails(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("down", 3600.0)])
        feed.write(event(0))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: runner.counted.get("failures"))
        assert ([], {0: Position()}) == (sender.accepted, cursors_on_disk(data, "hook"))
        assert 1 == len(sender.sent)

    run(main())


def test_a_stop_does_not_wait_to_plan_for_a_held_destination(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        limits = BatchLimits(max_events=5, max_bytes=10**6, max_age_s=1000.0)
        sender = FakeSender([Held("status 401")] * 10**4, limits)
        feed.write(*map(event, range(7)))  # two of them in the open batch
        runner = make_runner(data, sender, clock=HandClock().clock)  # `stop_s` never passes
        task = asyncio.ensure_future(runner.run())
        await until(lambda: not runner.health.breaker.is_healthy)
        runner.stop()
        await asyncio.wait_for(task, WAIT_S)
        assert {0: Position()} == cursors_on_disk(data, "hook")

    run(main())


def test_a_stop_waits_for_the_request_under_way(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender()
        sender.gate.clear()
        feed.write(event(0))
        runner = make_runner(data, sender)
        task = asyncio.ensure_future(runner.run())
        await until(lambda: sender.sent)
        runner.stop()
        sender.gate.set()
        await asyncio.wait_for(task, WAIT_S)
        assert [0] == sender.numbers
        assert {0: feed.position} == cursors_on_disk(data, "hook")

    run(main())


def test_a_stop_waits_at_most_stop_s_for_a_destination_that_hangs(
    data: DataDir, feed: Feed
) -> None:
    timings = replace(QUICK, stop_s=0.05)

    async def main() -> None:
        hanging = FakeSender()
        hanging.gate.clear()
        feed.write(event(0))
        async with running(make_runner(data, hanging, timings=timings)):
            await until(lambda: hanging.sent)
        assert ([], {0: Position()}) == (hanging.accepted, cursors_on_disk(data, "hook"))
        sender = FakeSender()
        async with running(make_runner(data, sender, timings=timings)):
            await sender.has(1)
        assert ([0], hanging.ids) == (sender.numbers, sender.ids), "the same batch again"

    run(main())


def test_a_stop_ends_while_new_events_arrive(data: DataDir, feed: Feed) -> None:
    """Collectors may continue to run; events after the stop are delivered after the next start."""
    timings = replace(QUICK, stop_s=0.0)
    max_count = 50
    numbers = iter(range(10**6))

    def on_send(_: Batch) -> None:
        if len(sender.sent) < max_count:  # so that the test ends even if the runner would not
            feed.write(event(next(numbers)))

    sender = FakeSender(on_send=on_send)

    async def main() -> None:
        feed.write(event(next(numbers)))
        runner = make_runner(data, sender, timings=timings)
        async with running(runner):
            await until(lambda: sender.sent)
            runner.stop()
            before = len(sender.sent)
        assert len(sender.sent) - before < max_count // 2

    run(main())


def test_a_stop_before_the_start_delivers_stored_events(data: DataDir, feed: Feed) -> None:
    """A server that is stopped right after its start may have accepted events, too."""

    async def main() -> None:
        sender = FakeSender()
        runner = make_runner(data, sender)
        feed.write(event(0))
        runner.stop()
        await asyncio.wait_for(runner.run(), WAIT_S)
        assert [0] == sender.numbers

    run(main())


@pytest.mark.parametrize("looks", range(12))
def test_a_stop_at_any_moment_delivers_a_slot_that_was_created_before(
    data: DataDir, feed: Feed, looks: int
) -> None:
    """The stop comes right after the runner has read the clock."""
    hand = HandClock()
    timings = replace(QUICK, list_slots_s=1e9)

    async def main() -> None:
        sender = FakeSender()
        runner = make_runner(data, sender, timings=timings, clock=hand.clock)
        feed.write(event(0))
        left = looks

        def count() -> None:
            nonlocal left
            hand.advance(0.001)
            if is_counting:
                left -= 1
                if left < 0:
                    loop.call_soon(runner.stop)

        loop, is_counting = asyncio.get_running_loop(), False
        hand.on_look = count
        task = asyncio.ensure_future(runner.run())
        await sender.has(1)
        await until(lambda: runner.counted.get("delivered") == 1)
        with Feed(data, slot=1) as other:
            other.write(event(1))
        is_counting = True
        await asyncio.wait_for(task, WAIT_S)
        assert [0, 1] == sender.numbers

    run(main())


def test_a_runner_releases_its_lock_when_it_ends(data: DataDir) -> None:
    async def main() -> None:
        for _ in range(3):
            runner = make_runner(data, FakeSender(limits=AT_ONCE))
            async with running(runner):
                await until(lambda runner=runner: runner.is_open)

    run(main())
