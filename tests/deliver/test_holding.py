"""A destination that rejects events is held only if it accepts nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from pixelfast.backoff import Backoff
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.event_log import SpoolLog
from pixelfast.deliver.health import Health, Hold
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.probe import newest_events, send_some
from pixelfast.deliver.rejections import Rejections
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import DataDir
from tests.deliver.clocks import HandClock
from tests.deliver.runners import (
    QUICK,
    FakeSender,
    check_sum,
    counters_on_disk,
    make_runner,
    plans_on_disk,
    running,
)
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event, fill
from tests.deliver.test_rejections import (
    NO,
    are_replayed,
    ask_for_replay,
    is_settled,
    letters_of,
    numbers,
)
from tests.spools import Feed
from tests.waiting import until

DOWN = Retry("status 500", status=500)
BUSY = Retry("status 503", status=503)
SMALL = BatchLimits(max_events=20, max_bytes=10**6, max_age_s=0.0)


def all_or_nothing(is_bad: Callable[[int], bool]) -> Callable[[Batch], Outcome]:
    return lambda batch: NO if any(map(is_bad, numbers(batch))) else Accepted()


def one_by_one(is_bad: Callable[[int], bool]) -> Callable[[Batch], Outcome]:
    def judge(batch: Batch) -> Outcome:
        failed = {place: NO for place, number in enumerate(numbers(batch)) if is_bad(number)}
        return Partial.of(failed) if failed else Accepted()

    return judge


JUDGES = pytest.mark.parametrize("judging", [all_or_nothing, one_by_one])


async def settled_while_good_ones_come(runner: Runner, feed: Feed, number: int) -> int:
    """Write events from `number` on until all are settled; return the next number."""
    while True:
        fill(feed, number, number + 10)
        number += 10
        for _ in range(10):
            await runner.pause(0.01)
            if is_settled(runner, feed):
                return number


@JUDGES
@pytest.mark.parametrize("concurrency", [1, 64])
def test_a_destination_that_rejects_everything_is_held_without_dead_letters(
    data: DataDir, feed: Feed, judging: Callable[..., Callable[[Batch], Outcome]], concurrency: int
) -> None:
    async def main() -> None:
        sender = FakeSender(judge=judging(lambda _: True), limits=SMALL, concurrency=concurrency)
        fill(feed, 0, 100)
        runner = make_runner(data, sender)
        with capture_logs() as logs:
            async with running(runner):
                await until(lambda: runner.health.breaker.state == "held")
                attempts = len(sender.sent)
                await until(lambda: len(sender.sent) >= attempts + 5)
                assert "held" == runner.health.breaker.state
                check_sum(runner.stats({0: 100}))
                assert 0 == runner.counted.get("dead", 0)
                sender.judge = lambda _: Accepted()  # the destination was fixed
                await until(lambda: is_settled(runner, feed))
                assert "healthy" == runner.health.breaker.state
        (held,) = [each for each in logs if each["event"] == "destination_held"]
        assert ("error", '{"error":"invalid"}') == (held["log_level"], held["response"])
        assert "every event is rejected: status 400" == held["reason"]
        assert set(range(100)) == set(sender.numbers)

    run(main())
    assert 100 == counters_on_disk(data, "hook")["delivered"]
    assert not (data.dead_dir("hook") / "dead.db").exists()


@JUDGES
@pytest.mark.parametrize("one_in", [2, 20, 50])
def test_no_share_of_bad_events_delays_the_good_ones_forever(
    data: DataDir, feed: Feed, judging: Callable[..., Callable[[Batch], Outcome]], one_in: int
) -> None:
    """All events except one in `share` are bad."""

    async def main() -> None:
        judge = judging(lambda n: n < 1000 and n % one_in != 0)
        sender = FakeSender(judge=judge, limits=SMALL, concurrency=8)
        fill(feed, 0, 1000)
        runner = make_runner(data, sender)
        async with running(runner):
            stop = await settled_while_good_ones_come(runner, feed, 1000)
            figures = runner.stats({0: stop})
        good = [n for n in range(stop) if n >= 1000 or n % one_in == 0]
        assert good == sorted(set(sender.numbers))
        assert (len(good), stop - len(good)) == (figures["delivered"], figures["dead"])
        check_sum(figures)

    run(main())
    assert [n for n in range(1000) if n % one_in] == sorted(letters_of(data))
    assert [] == plans_on_disk(data, "hook")


@JUDGES
def test_good_events_after_a_flood_of_bad_ones_are_found_by_probes(
    data: DataDir,
    feed: Feed,
    judging: Callable[..., Callable[[Batch], Outcome]],
) -> None:
    timings = replace(QUICK, held_s=0.2)

    async def main() -> None:
        sender = FakeSender(judge=judging(lambda n: n < 2000), limits=SMALL, concurrency=8)
        fill(feed, 0, 2000)
        runner = make_runner(data, sender, timings=timings)
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "held")
            assert 0 == runner.counted.get("dead", 0)
            stop = await settled_while_good_ones_come(runner, feed, 2000)
            check_sum(runner.stats({0: stop}))
        assert set(range(2000, stop)) == set(sender.numbers)
        (first, *_) = [each for each in sender.ids if each.startswith("probe-")]
        assert first not in plans_on_disk(data, "hook")

    run(main())
    assert list(range(2000)) == sorted(letters_of(data))


def test_a_restart_during_a_hold_loses_no_event_and_makes_no_dead_letter(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        fill(feed, 0, 60)
        held = FakeSender(judge=lambda _: NO, limits=SMALL)
        runner = make_runner(data, held)
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "held")
        sender = FakeSender(limits=SMALL)
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            check_sum(runner.stats({0: 60}))
        assert list(range(60)) == sorted(sender.numbers)

    run(main())
    assert "dead" not in counters_on_disk(data, "hook")


def test_a_single_bad_event_becomes_a_dead_letter_without_further_events(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        feed.write(event(0))
        runner = make_runner(data, FakeSender(judge=lambda _: NO, limits=SMALL))
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            assert "healthy" == runner.health.breaker.state

    run(main())
    assert [0] == letters_of(data)


def test_replayed_dead_letters_that_are_rejected_do_not_hold_the_destination(
    data: DataDir, feed: Feed
) -> None:
    async def main() -> None:
        sender = FakeSender(judge=all_or_nothing(lambda n: n > 0), limits=SMALL)
        feed.write(*map(event, range(20)))
        feed.write(*map(event, range(20, 40)))
        feed.write(event(0))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed) and runner.counted.get("dead") == 39)
            assert 39 == await asyncio.to_thread(ask_for_replay, data)
            await until(lambda: len(sender.sent) > 100)
            await until(lambda: are_replayed(data))
            assert "healthy" == runner.health.breaker.state

    run(main())
    assert 39 == len(letters_of(data))


def test_a_hold_that_ends_and_returns_is_logged_once_a_minute() -> None:
    hand = HandClock(100.0)
    health = Health("hook", Backoff(1.0, 2.0), 64, Timings(), hand.clock)
    with capture_logs() as logs:
        for _ in range(61):
            health.hold(Hold.REJECTIONS, "every event is rejected", NO)
            assert "held" == health.breaker.state
            health.note(Accepted(), 1, hand.now_s, 1)
            assert "healthy" == health.breaker.state
            hand.advance(1.0)
    told = ["destination_held", "destination_recovered"]
    assert told * 2 == [each["event"] for each in logs]


def test_only_a_stored_dead_letter_or_an_accepted_batch_ends_a_hold_for_full_dead_letters() -> None:
    """Another batch was under way when the hold began; its accepted events do not end it."""
    ends: list[Callable[[Health], object]] = [
        lambda health: health.found_space(),
        lambda health: health.note(Accepted(), 2, 0.0, 1),
    ]
    for end in ends:
        health = Health("hook", Backoff(1.0, 2.0), 64, Timings(), DeliveryClock())
        with capture_logs() as logs:
            health.hold(Hold.DEAD_LETTERS, "the dead letters have reached their size limit", NO)
            health.note(Partial.of({0: NO}), 2, 0.0, 1)
            assert ["destination_held"] == [each["event"] for each in logs]
            assert "held" == health.breaker.state
            end(health)
        assert ["destination_held", "destination_recovered"] == [each["event"] for each in logs]
        assert "healthy" == health.breaker.state


# --- the rule by itself ----------------------------------------------------------------------


def reject(rejections: Rejections, *batches: tuple[str, int], now_s: float = 0.0) -> None:
    for batch, events in batches:
        rejections.reject(batch, events, events, now_s)


@pytest.mark.parametrize(
    ("batches", "is_held"),
    [
        ([("a", 5), ("b", 5)], True),
        ([("a", 9), ("b", 1)], True),
        ([("a", 5), ("b", 4)], False),
        ([("a", 500)], False),
        ([(name, 1) for name in "abcdefghij"], True),
    ],
)
def test_ten_rejected_events_of_two_batches_are_enough_for_a_hold(
    batches: list[tuple[str, int]], is_held: bool
) -> None:
    rejections = Rejections(Timings())
    reject(rejections, *batches)
    assert [False, is_held] == [rejections.must_hold(1.9), rejections.must_hold(2.0)]


def test_a_batch_counts_when_all_of_it_is_rejected() -> None:
    rejections = Rejections(Timings())
    for batch in "ab":
        rejections.reject(batch, 19, whole=20, now_s=0.0)
    assert not rejections.must_hold(100.0)
    for batch in "ab":
        rejections.reject(batch, 1, whole=20, now_s=0.0)
    assert rejections.must_hold(100.0)


def test_one_accepted_event_restarts_the_count() -> None:
    rejections = Rejections(Timings())
    reject(rejections, ("a", 100), ("b", 100))
    rejections.accept("c", 1, now_s=1.0)
    assert not rejections.must_hold(100.0)
    reject(rejections, ("d", 100), now_s=2.0)
    assert not rejections.must_hold(100.0)
    reject(rejections, ("e", 1), now_s=3.0)
    assert rejections.must_hold(100.0)


def test_rejected_events_are_bad_if_others_are_accepted_at_about_the_same_time() -> None:
    rejections = Rejections(Timings())
    assert not rejections.are_bad("a", began_s=1.0)
    rejections.accept("b", 1, now_s=1.5)
    assert rejections.are_bad("a", began_s=1.0)
    assert not rejections.are_bad("a", began_s=2.0), "it may have broken since"
    assert rejections.are_bad("b", began_s=2.0), "the rest of the batch is there"
    reject(rejections, ("b", 10), now_s=2.0)
    assert not rejections.are_bad("b", began_s=2.0)


@pytest.mark.parametrize(
    ("good", "bad", "events", "expected"),
    [(1000, 0, 500, 250), (1000, 1, 500, 250), (750, 250, 500, 2), (0, 500, 500, 1), (1, 1, 3, 1)],
)
def test_parts_are_smaller_if_more_events_are_bad(
    good: int, bad: int, events: int, expected: int
) -> None:
    rejections = Rejections(Timings())
    rejections.accept("a", good, now_s=0.0)
    rejections.blame(bad)
    assert expected == rejections.part_events(events)


def test_the_size_of_parts_follows_recent_events() -> None:
    rejections = Rejections(Timings())
    for _ in range(10):
        rejections.accept("a", 1000, now_s=0.0)
    rejections.blame(2000)
    assert 1 == rejections.part_events(100), "of 12,000 events, a sixth was bad"


def test_wrong_settings_are_probed_after_five_seconds_and_then_less_often() -> None:
    hand = HandClock(100.0)
    health = Health("hook", Backoff(1.0, 2.0), 64, Timings(), hand.clock)
    waits = []
    for _ in range(6):
        for _ in range(64):  # under way at the same time
            health.hold(Hold.SETTINGS, "status 401", Held("status 401", 401))
        waits.append(health.breaker.wait_s(hand.now_s))
        hand.advance(waits[-1])
    assert [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] == waits
    health.note(Rejected("status 400"), 1, hand.now_s, 1)
    assert "healthy" == health.breaker.state
    health.hold(Hold.SETTINGS, "status 401", Held("status 401", 401))
    assert 5.0 == health.breaker.wait_s(hand.now_s)


@pytest.mark.parametrize("segment_bytes", [2**16])
def test_probes_do_not_contain_events_that_were_already_read(data: DataDir, feed: Feed) -> None:
    fill(feed, 0, 100)
    position = feed.position
    assert 0 == newest_events(SpoolLog(data), {0: position}, Selection()).events
    feed.write(*map(event, range(100, 103)))
    feed.write(event(103), source="mail")
    found = numbers(newest_events(SpoolLog(data), {0: position}, Selection()))
    assert [100, 101, 102, 103] == found
    only_web = Selection(excluded=("mail",))
    found = numbers(newest_events(SpoolLog(data), {0: position}, only_web))
    assert [100, 101, 102] == found
    found = numbers(newest_events(SpoolLog(data), {}, Selection()))
    assert list(range(104 - 64, 104)) == found


@pytest.mark.parametrize(
    ("responses", "found"),
    [
        ([DOWN] * 5 + [Accepted()] * 11, (Accepted(), 1, 11, 5)),
        ([Held("status 403", 403)] * 20, (Held("status 403", 403), 1, 0, 16)),
        ([Accepted()] * 20, (Accepted(), 1, 16, 0)),
        ([Retry("connection refused")] * 20, (Retry("connection refused"), 1, 0, 1)),
        ([BUSY] * 20, (BUSY, 1, 0, 1)),
        ([Retry("status 500", 5.0, 500)] * 20, (Retry("status 500", 5.0, 500), 1, 0, 1)),
    ],
    ids=["500", "403", "up", "rejected", "busy", "retry-after"],
)
def test_a_probe_sends_a_few_events_while_the_destination_responds(
    responses: list[Outcome], found: tuple[Outcome, int, int, int]
) -> None:
    async def main() -> None:
        sender = FakeSender(responses)
        events = batch_of(event(n) for n in range(64))
        assert found == await send_some(sender, events)
        assert sum(found[2:]) == len(sender.sent) == len(set(sender.ids))

    run(main())


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_good_events_are_delivered_while_most_batches_fail(
    data: DataDir, feed: Feed, share: float
) -> None:
    """Like a firewall that blocks the contents of many events and accepts the others."""

    def judge(batch: Batch) -> Outcome:
        bad = any(number % 10 < share * 10 for number in numbers(batch))
        return Held("status 403", 403) if bad else Accepted()

    async def main() -> None:
        sender = FakeSender(judge=judge, limits=SMALL, concurrency=8)
        runner = make_runner(data, sender)
        fill(feed, 0, 200)
        good = {n for n in range(200) if n % 10 >= share * 10}
        number = 200
        async with running(runner):
            while not good <= set(sender.numbers):
                fill(feed, number, number + 20)
                number += 20
                await runner.pause(0.05)
            check_sum(runner.stats({0: number}))
            assert len(sender.sent) < 20 * number, "it is not asked without end"

    run(main())


def test_a_probe_of_the_newest_events_has_their_sources(data: DataDir, feed: Feed) -> None:
    feed.write(event(0), source="web")
    feed.write(event(1), event(2), source="mail")
    found = newest_events(SpoolLog(data), {}, Selection())
    assert ["web", "mail", "mail"] == found.sources()

    async def main() -> None:
        sources: list[list[str]] = []
        sender = FakeSender(on_send=lambda batch: sources.append(batch.sources()))
        await send_some(sender, found)
        assert [["mail"], ["mail"], ["web"]] == sorted(sources)

    run(main())


def test_a_destination_that_fails_for_no_event_is_retried_without_dividing_batches(
    data: DataDir, feed: Feed
) -> None:
    class Selective(FakeSender):
        blames_events = False

    fill(feed, 0, 60)
    failures = 0

    def judge(batch: Batch) -> Outcome:
        nonlocal failures
        if event(0) in batch.lines() and failures < 30:
            failures += 1
            return DOWN
        return Accepted()

    async def main() -> None:
        sender = Selective(judge=judge, concurrency=4)
        async with running(make_runner(data, sender)):
            await sender.has(60)
        first = [event(n) for n in range(5)]
        assert [first] * 31 == [each for each in sender.sent if event(0) in each]

    run(main())


@pytest.mark.parametrize("blames", [True, False])
def test_a_destination_that_is_down_gets_probes_only_if_events_may_be_the_cause(
    data: DataDir, feed: Feed, blames: bool
) -> None:
    class Blaming(FakeSender):
        blames_events = blames

    fill(feed, 0, 100)

    async def main() -> None:
        sender = Blaming([DOWN] * 30, concurrency=4)
        async with running(make_runner(data, sender)):
            await sender.has(100)
        assert blames == any(each.startswith("probe-") for each in sender.ids)

    run(main())
