"""How many requests a destination gets at once, and when: concurrency, breaker, Retry-After."""

from __future__ import annotations

import asyncio

import pytest

from pixelfast.backoff import Backoff
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.breaker import Breaker
from pixelfast.deliver.concurrency import Concurrency
from pixelfast.deliver.health import Health
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial, Rejected, Retry
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import QUICK, FakeSender, check_sum, make_runner, running
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until

SMALL = BatchLimits(max_events=5, max_bytes=10**6, max_age_s=0.0)


def make_breaker() -> Breaker:
    return Breaker(Backoff(1.0, 8.0, random=lambda: 1.0))


def test_five_failures_in_a_row_open_the_breaker_which_then_allows_one_request_at_a_time() -> None:
    breaker = make_breaker()
    now_s = 0.0
    for _ in range(5):
        assert breaker.allows(now_s, under_way=3)
        now_s += 0.1
        breaker.failed("down", began_s=now_s - 0.05, now_s=now_s, after_s=0.0)
    assert ("backing_off", 5) == (breaker.state, breaker.failures)
    assert not breaker.allows(now_s + 7.9, 0)
    assert breaker.allows(now_s + 8.0, 0)
    assert not breaker.allows(now_s + 8.0, 1)
    breaker.succeeded()
    assert ("healthy", "", 0) == (breaker.state, breaker.reason, breaker.failures)
    assert breaker.allows(now_s, 10)


def test_requests_that_fail_together_count_as_one_failure() -> None:
    breaker = make_breaker()
    for _ in range(64):
        breaker.failed("reset", began_s=1.0, now_s=2.0, after_s=0.0)
    assert ("healthy", 1) == (breaker.state, breaker.failures)


def test_retry_after_stops_all_requests_until_then() -> None:
    breaker = make_breaker()
    breaker.failed("status 429", began_s=0.0, now_s=1.0, after_s=120.0)
    assert not breaker.allows(120.9, 0)
    assert breaker.allows(121.0, 7)


def test_a_held_destination_is_retried_after_its_own_pause() -> None:
    breaker = make_breaker()
    breaker.hold("status 401", now_s=10.0, held_s=60.0)
    assert [False, True, False] == [
        breaker.allows(69.9, 0),
        breaker.allows(70.0, 0),
        breaker.allows(70.0, 1),
    ]
    breaker.hold("status 410", now_s=70.0, is_final=True)
    assert not breaker.allows(10.0**9, 0)


def test_concurrency_grows_with_success_and_shrinks_once_for_simultaneous_failures() -> None:
    allowed = Concurrency(64)
    assert 4 == allowed.limit
    for _ in range(100):
        allowed.succeeded(0.0, 0.01, under_way=allowed.limit)
    assert 64 == allowed.limit
    for _ in range(64):
        allowed.failed(began_s=1.0, now_s=2.0)
    assert 57 == allowed.limit
    allowed.failed(began_s=3.0, now_s=4.0)
    assert 51 == allowed.limit


def test_concurrency_does_not_grow_while_it_is_not_used() -> None:
    allowed = Concurrency(64)
    for _ in range(100):
        allowed.succeeded(0.0, 0.01, under_way=1)
    assert 4 == allowed.limit


def test_responses_that_take_much_longer_than_usual_reduce_the_concurrency() -> None:
    allowed = Concurrency(64)
    for n in range(20):
        allowed.succeeded(float(n), n + 0.01, under_way=allowed.limit)
    before = allowed.limit
    allowed.succeeded(30.0, 30.05, under_way=allowed.limit)
    assert allowed.limit < before


def test_concurrency_is_at_least_one() -> None:
    allowed = Concurrency(64)
    for n in range(200):
        allowed.failed(began_s=float(n) + 0.5, now_s=n + 1.0)
    assert 1 == allowed.limit
    assert 1 == Concurrency(1).limit


def test_many_batches_are_under_way_at_once_and_each_is_delivered_once(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender(limits=SMALL, concurrency=16)
        for start in range(0, 2000, 50):
            feed.write(*map(event, range(start, start + 50)))
        sender.gate.clear()
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: sender.under_way == 4)
            sender.gate.set()
            await sender.has(2000)
            await until(lambda: runner.cursors == {0: feed.position})
            check_sum(runner.stats({0: 2000}))
        assert sorted(sender.numbers) == list(range(2000))
        assert 1 < sender.max_under_way <= 16
        assert len(set(sender.ids)) == len(sender.ids) == 400

    run(main())


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Accepted(), 5),
        (Partial.of({0: Rejected("invalid")}), 5),
        (Rejected("invalid"), 5),
        (Partial.of({0: Rejected("invalid"), 1: Retry("busy")}), 3),
        (Retry("busy"), 3),
    ],
)
def test_rejected_events_do_not_reduce_the_concurrency_but_overload_does(
    outcome: Outcome, expected: int
) -> None:
    """Anybody can send events that a destination rejects."""
    clock = HandClock()
    health = Health("hook", Backoff(1.0, 8.0), 64, QUICK, clock.clock)
    health.note(outcome, events=5, began_s=clock.now_s, under_way=4)
    assert expected == health.concurrency.limit


def test_a_batch_that_failed_waits_while_all_others_are_delivered(
    data: DataDir, feed: Feed
) -> None:
    hand = HandClock()

    async def main() -> None:
        sender = FakeSender([Retry("unlucky")], limits=SMALL, concurrency=8)
        feed.write(*map(event, range(40)))
        backoff = Backoff(3600.0, 3600.0, random=lambda: 1.0)
        runner = make_runner(data, sender, clock=hand.clock, backoff=backoff)
        async with running(runner):
            await until(lambda: len(sender.accepted) == 35)
            await until(lambda: runner.queue.plans == 1)
            assert set(sender.accepted).isdisjoint(sender.sent[0])
            hand.advance(3600.0)
            await until(lambda: len(sender.accepted) == 40)
        assert list(range(40)) == sorted(sender.numbers)
        assert sender.sent[0] == sender.sent[-1]

    run(main())


def test_one_batch_under_way_does_not_delay_the_others(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender(limits=SMALL, concurrency=8)
        sender.gate.clear()
        feed.write(*map(event, range(5)))
        async with running(make_runner(data, sender)):
            await until(lambda: sender.under_way == 1)
            slow, sender.gate = sender.gate, asyncio.Event()
            sender.gate.set()
            feed.write(*map(event, range(5, 40)))
            await sender.has(35)
            assert list(range(5, 40)) == sorted(sender.numbers)
            slow.set()
            await sender.has(40)

    run(main())


def test_a_destination_that_is_down_gets_one_request_at_a_time(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("down")] * 10**4, limits=SMALL, concurrency=16)
        feed.write(*map(event, range(1000)))
        hand = HandClock(a_look_s=0.0001)
        runner = make_runner(data, sender, clock=hand.clock)
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "backing_off")
            await until(lambda: not sender.under_way)
            allowed = runner.health.concurrency
            for _ in range(4):  # so that only the breaker allows no second request
                allowed.succeeded(0.0, 0.0, under_way=allowed.limit)
            assert 4 < allowed.limit
            sender.gate.clear()
            hand.advance(3600.0)
            await until(lambda: sender.under_way)
            hand.advance(3600.0)
            await hand.looks(100)
            assert 1 == sender.under_way
            sender.gate.set()
            check_sum(runner.stats({0: 1000}))
            sender.script.clear()
            await until(lambda: len(set(sender.accepted)) == 1000)
        assert sorted(set(sender.numbers)) == list(range(1000))
        assert len(sender.accepted) <= 1016, "a probe may have repeated up to 16 events"

    run(main())


def test_no_request_is_sent_before_retry_after_has_passed(data: DataDir, feed: Feed) -> None:
    hand = HandClock(a_look_s=0.001)

    async def main() -> None:
        sender = FakeSender([Retry("status 429", 400.0)], limits=SMALL, concurrency=16)
        feed.write(*map(event, range(5)))
        runner = make_runner(data, sender, clock=hand.clock)
        async with running(runner):
            await until(lambda: runner.health.breaker.failures == 1)
            feed.write(*map(event, range(5, 50)))
            for _ in range(2):
                await until(lambda: runner.queue.plans == 10)  # they could be sent
                await hand.looks(100)
                assert 1 == len(sender.sent)
                hand.advance(199.0)
            hand.advance(2.0)
            await sender.has(50)

    run(main())
