"""The event that makes a destination fail is found while other batches are accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.sender import Sender
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import QUICK, FakeSender, check_sum, make_runner, plans_on_disk, running
from tests.deliver.running import run
from tests.deliver.spools import event, fill
from tests.deliver.test_rejections import are_replayed, ask_for_replay, letters_of, numbers
from tests.fake_destination import OK, FakeDestination, FakeResponse, Request
from tests.spools import Feed
from tests.waiting import until

SMALL = BatchLimits(max_events=20, max_bytes=10**6, max_age_s=0.0)
DOWN = Retry("status 500", status=500)


def failing_at(*culprits: int) -> Callable[[Batch], Outcome]:
    return lambda batch: DOWN if set(culprits) & set(numbers(batch)) else Accepted()


SOON = replace(QUICK, max_culprit_pause_s=0.02, in_order_s=0.005)


def runner_of(data: DataDir, sender: Sender, **options: Any) -> Runner:
    return make_runner(data, sender, timings=SOON, **options)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("culprits", [(7,), (0, 19), (3, 25, 47, 61, 83)])
def test_only_events_that_make_a_destination_fail_wait(
    data: DataDir, feed: Feed, concurrency: int, culprits: tuple[int, ...]
) -> None:
    async def main() -> None:
        sender = FakeSender(judge=failing_at(*culprits), limits=SMALL, concurrency=concurrency)
        fill(feed, 0, 100)
        good = set(range(101)) - set(culprits)
        runner = runner_of(data, sender)
        async with running(runner):
            await until(lambda: sender.sent)
            feed.write(event(100))
            await until(lambda: good <= set(sender.numbers))
            await until(lambda: len(plans_on_disk(data, "hook")) == len(culprits))
            await until(lambda: runner.health.breaker.is_healthy)
            await until(lambda: len(culprits) == runner.stats({0: 101})["pending"])
            check_sum(runner.stats({0: 101}))
            sender.judge = lambda _: Accepted()  # the destination was fixed
            await until(lambda: runner.cursors == {0: feed.position})
        assert set(range(101)) == set(sender.numbers)

    run(main())
    assert not (data.dead_dir("hook") / "dead.db").exists()


@pytest.mark.parametrize(
    "fault",
    [
        FakeResponse(status=500),
        FakeResponse(status=502),
        FakeResponse(first="reset"),
        FakeResponse(first="never"),
        FakeResponse(status=500, then="cut"),
        FakeResponse(status=403),
        FakeResponse(status=404),
    ],
    ids=["500", "502", "reset", "time-out", "cut", "403", "404"],
)
def test_the_bad_event_is_found_for_every_kind_of_failure(
    data: DataDir, feed: Feed, fault: FakeResponse
) -> None:
    def response(request: Request) -> FakeResponse:
        return fault if any(each["n"] == 42 for each in request.events()) else OK

    async def main() -> None:
        async with FakeDestination(response) as destination:
            sender = HttpSender(
                destination.url,
                "json_array",
                SMALL,
                timeouts=Timeouts(total_s=0.1, connect_s=0.1),
                concurrency=8,
            )
            fill(feed, 0, 100)
            runner = runner_of(data, sender)
            async with running(runner):
                await until(lambda: runner.health.failures or runner.counted.get("failures"))
                feed.write(event(100))
                await until(
                    lambda: (
                        runner.counted.get("delivered") == 100
                        and len(plans_on_disk(data, "hook")) == 1
                    )
                )
                check_sum(runner.stats({0: 101}))

    run(main())


def test_only_the_bad_event_becomes_a_dead_letter_by_age(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(judge=failing_at(7), limits=SMALL, concurrency=8)
        hand = HandClock(a_look_s=0.0001)
        feed.write(*map(event, range(20)), received_ms=int(hand.now_s * 1000))
        runner = runner_of(data, sender, retry_for_s=100.0, clock=hand.clock)
        async with running(runner):
            await until(lambda: runner.counted.get("failures"))
            fill(feed, 20, 100)
            await until(lambda: runner.counted.get("delivered") == 99)
            assert not runner.counted.get("dead")
            hand.advance(100.0)
            await until(lambda: runner.counted.get("dead") == 1)
            await until(lambda: runner.cursors == {0: feed.position})
            check_sum(runner.stats({0: 100}))
        assert set(range(100)) - {7} == set(sender.numbers)

    run(main())
    assert [7] == letters_of(data)


def test_batches_are_not_divided_while_a_destination_is_down(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(judge=lambda _: DOWN, limits=SMALL, concurrency=8)
        fill(feed, 0, 100)
        runner = runner_of(data, sender)
        async with running(runner):
            await until(lambda: len(sender.sent) > 60)
            assert "backing_off" == runner.health.breaker.state
            planned = [n for n, each in enumerate(sender.ids) if not each.startswith("probe-")]
            assert {20} == {len(sender.sent[n]) for n in planned}
            assert 5 == len({sender.ids[n] for n in planned[-10:]}), "each gets its turn"

    run(main())


def test_a_busy_destination_does_not_get_more_requests(data: DataDir, feed: Feed) -> None:
    """Status 429 or Retry-After means that there are too many requests already."""
    busy = [Retry("status 429", 0.001, status=429)] * 9

    def judge(batch: Batch) -> Outcome:
        return busy.pop() if 7 in numbers(batch) and busy else Accepted()

    sender = FakeSender(judge=judge, limits=SMALL, concurrency=8)

    async def main() -> None:
        fill(feed, 0, 20)
        runner = runner_of(data, sender)
        async with running(runner):
            for start in range(20, 200, 20):
                fill(feed, start, start + 20)
                await sender.has(start)
            await until(lambda: runner.cursors == {0: feed.position})
        sent = [each for each in sender.ids if not each.startswith("probe-")]
        assert [] == [each for each in sent if "-" in each], "no part of a batch"

    run(main())


@pytest.mark.parametrize(
    "outcome",
    [Retry("status 429", 0.001, status=429), Retry("status 503", status=503)],
    ids=["429", "503"],
)
def test_an_event_that_keeps_a_destination_busy_forever_is_found(
    data: DataDir, feed: Feed, outcome: Retry
) -> None:

    async def main() -> None:
        sender = FakeSender(limits=SMALL, concurrency=8)
        sender.judge = lambda batch: outcome if 7 in numbers(batch) else Accepted()
        fill(feed, 0, 20)
        runner = runner_of(data, sender, max_culprits=((0, 1),))
        number = 20
        async with running(runner):
            while not any(each.is_culprit for each in runner.queue):
                feed.write(event(number))
                number += 1
                await runner.pause(0.01)
                assert "dead" not in runner.counted, "it may be true"
            assert set(range(20)) - {7} <= set(sender.numbers)
            check_sum(runner.stats({0: number}))

    run(main())


def test_items_that_fail_for_a_while_are_all_delivered_in_the_end(
    data: DataDir, feed: Feed
) -> None:
    """Like an index of which one shard is unavailable and the others accept documents."""
    away = Retry("status 503", status=503)

    def judge(batch: Batch) -> Outcome:
        failed = {place: away for place, number in enumerate(numbers(batch)) if number % 4 == 0}
        return Partial.of(failed) if failed else Accepted()

    async def main() -> None:
        sender = FakeSender(judge=judge, limits=SMALL, concurrency=8)
        fill(feed, 0, 400)
        good = {n for n in range(400) if n % 4}
        runner = runner_of(data, sender, max_culprits=((5, 1),))
        async with running(runner):
            await until(lambda: good <= set(sender.numbers))
            attempts = len(sender.sent)
            await until(lambda: len(sender.sent) > attempts + 100)
            check_sum(runner.stats({0: 400}))
            sender.judge = lambda _: Accepted()
            await until(lambda: runner.cursors == {0: feed.position})
        assert list(range(400)) == sorted(set(sender.numbers))

    run(main())
    assert not (data.dead_dir("hook") / "dead.db").exists()


def test_too_many_bad_events_do_not_fill_the_memory(data: DataDir, feed: Feed) -> None:

    async def main() -> None:
        bad = range(0, 100, 4)
        sender = FakeSender(judge=failing_at(*bad), limits=SMALL, concurrency=8)
        fill(feed, 0, 110)
        runner = runner_of(data, sender, max_culprits=((5, 2),))
        number = 110
        async with running(runner):
            while runner.counted.get("dead", 0) < len(bad) - 6:
                feed.write(event(number))
                number += 1
                await runner.pause(0.01)
            waiting = [each for each in runner.queue if each.is_culprit]
            assert all(each.batch is None for each in waiting)
            check_sum(runner.stats({0: number}))
        assert set(range(number)) - set(bad) >= set(sender.numbers)
        assert set(letters_of(data)) < set(bad)

    run(main())


def test_a_replayed_dead_letter_that_makes_its_destination_fail_stays_one(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender(judge=failing_at(3), limits=SMALL, concurrency=8)
        fill(feed, 0, 10)
        runner = runner_of(data, sender, retry_for_s=0.001)
        async with running(runner):
            await until(lambda: runner.counted.get("dead") == 10)
            assert 10 == await asyncio.to_thread(ask_for_replay, data)
            number = 100
            while runner.counted["dead"] != 1 or not are_replayed(data):
                feed.write(event(number))
                number += 1
                await runner.pause(0.01)
        assert [3] == letters_of(data)

    run(main())


@pytest.mark.parametrize("has_poison", [False, True], ids=["clean", "poison"])
@pytest.mark.parametrize(
    "outcome",
    [Retry("connection refused"), Held("status 401", 401), Retry("status 503", status=503)],
    ids=["rejected", "401", "503"],
)
def test_no_event_is_blamed_if_the_destination_goes_down(
    data: DataDir,
    feed: Feed,
    outcome: Outcome,
    has_poison: bool,
) -> None:
    """Requests are under way when it goes down, so some fail before the last one is accepted."""
    poison = {3} if has_poison else set()

    async def main() -> None:
        sender = FakeSender(limits=SMALL, concurrency=8)
        sender.judge = lambda batch: DOWN if poison & set(numbers(batch)) else Accepted()
        fill(feed, 0, 200)
        runner = runner_of(data, sender, max_culprits=((1, 1),))
        async with running(runner):
            await until(lambda: set(range(200)) - poison <= set(sender.numbers))
            if has_poison:
                await until(lambda: any(each.is_culprit for each in runner.queue))
            sender.gate.clear()
            fill(feed, 200, 400)
            # Slow responses have lowered the limit on a machine that is busy.
            await until(lambda: sender.under_way >= min(3, runner.health.concurrency.limit))
            responses = iter([outcome, Accepted(), outcome, Accepted()])
            sender.judge = lambda _: next(responses, outcome)
            sender.gate.set()
            before = len(sender.sent)
            await until(lambda: not runner.health.breaker.is_healthy)
            attempts = (
                4 if isinstance(outcome, Held) else 60
            )  # probes of a held destination are rare
            await until(lambda: len(sender.sent) > before + attempts)
            assert len([each for each in runner.queue if each.is_culprit]) <= len(poison)
            assert len(runner.queue) < 30, "batches are not divided without end"
            assert "dead" not in runner.counted
            check_sum(runner.stats({0: 400}))
            sender.judge = lambda _: Accepted()
            await until(lambda: runner.cursors == {0: feed.position})
        assert set(range(400)) == set(sender.numbers)

    run(main())
    assert not (data.dead_dir("hook") / "dead.db").exists()


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_rejected_and_a_failing_event_in_one_batch_delay_no_other(
    data: DataDir, feed: Feed, concurrency: int
) -> None:
    def judge(batch: Batch) -> Outcome:
        failed: dict[int, Rejected | Retry] = {}
        for place, number in enumerate(numbers(batch)):
            if number < 100:
                failed[place] = Rejected("status 400", 400) if number % 2 else DOWN
        return Partial.of(failed) if failed else Accepted()

    async def main() -> None:
        limits = BatchLimits(max_events=2, max_bytes=10**6, max_age_s=0.0)
        sender = FakeSender(judge=judge, limits=limits, concurrency=concurrency)
        feed.write(event(1000))
        fill(feed, 0, 100)
        runner = runner_of(data, sender)
        number = 1001
        async with running(runner):
            while len(set(sender.numbers)) < 60:
                feed.write(event(number), event(number + 1))
                number += 2
                await runner.pause(0.02)
            await until(lambda: runner.counted.get("dead", 0) >= 50)
            check_sum(runner.stats({0: number - 900}))
        assert set(letters_of(data)) >= set(range(1, 100, 2))

    run(main())


def test_a_culprit_is_retried_after_its_runner_has_failed(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(judge=failing_at(7), limits=SMALL, concurrency=8)
        fill(feed, 0, 20)
        runner = runner_of(data, sender)
        number = 20
        task = asyncio.ensure_future(runner.run())
        while not any(each.is_culprit for each in runner.queue):
            feed.write(event(number))
            number += 1
            await runner.pause(0.01)
        good = set(range(number)) - {7}
        await until(lambda: good <= set(sender.numbers) and not sender.under_way)
        sender.gate.clear()
        await until(lambda: sender.under_way)
        task.cancel()
        await asyncio.wait({task})
        sender.gate.set()
        sender.judge = lambda _: Accepted()
        async with running(runner):
            await until(lambda: runner.cursors == {0: feed.position})
        assert 7 in sender.numbers

    run(main())


def test_one_accepted_culprit_lets_all_others_be_sent_at_once(data: DataDir, feed: Feed) -> None:
    """Each would wait for nine times the 100 s of that request."""
    hand = HandClock(a_look_s=0.0001)
    bad = {3, 7, 11}

    async def main() -> None:
        sender = FakeSender(judge=failing_at(*bad), limits=SMALL, concurrency=8)
        fill(feed, 0, 20)
        runner = runner_of(data, sender, clock=hand.clock)
        number = 20
        async with running(runner):
            while sum(each.is_culprit for each in runner.queue) < len(bad):
                feed.write(event(number))
                number += 1
                hand.advance(1.0)
                await runner.pause(0.01)
            good = set(range(number)) - bad
            await until(lambda: good <= set(sender.numbers) and not sender.under_way)
            sender.judge = lambda _: Accepted()
            sender.gate.clear()
            hand.advance(60.0)
            await until(lambda: sender.under_way)
            hand.advance(100.0)
            sender.gate.set()
            await until(lambda: bad <= set(sender.numbers))

    run(main())
