"""Rejected events are found by dividing batches, kept as dead letters, and replayed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from pixelfast.deliver import plans as plans_module
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.dead import DeadLetterLimits, DeadLetters
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.store import Changes, Store
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
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until

MANY = BatchLimits(max_events=500, max_bytes=10**6, max_age_s=0.0)
NO = Rejected("status 400", 400, b'{"error":"invalid"}')


COMMIT = Store.commit


def fail_before_delivered(store: Store, changes: Changes) -> None:
    """Fail as a crash would, before delivered events are recorded in the state."""
    if changes.counted.get("delivered"):
        raise sqlite3.OperationalError("disk I/O error")
    COMMIT(store, changes)


def numbers(batch: Batch) -> list[int]:
    return [json.loads(line)["n"] for line in batch.lines()]


def rejecting(*culprits: int, outcome: Rejected = NO) -> FakeSender:
    """Reject a whole batch for one bad event, like RudderStack's batch API."""

    def judge(batch: Batch) -> Outcome:
        return outcome if set(culprits) & set(numbers(batch)) else Accepted()

    return FakeSender(judge=judge, limits=MANY)


def opened_letters(data: DataDir) -> closing[DeadLetters]:
    """Open the dead letters on a separate connection, as the commands do."""
    return closing(DeadLetters(data.dead_dir("hook") / "dead.db"))


def letters_of(data: DataDir) -> list[int]:
    with opened_letters(data) as dead:
        return [json.loads(letter.event)["n"] for letter in dead.read()]


def ask_for_replay(data: DataDir) -> int:
    with opened_letters(data) as dead:
        return dead.ask_for_replay()


def are_replayed(data: DataDir) -> bool:
    """Return whether no dead letter is marked for replay."""
    with opened_letters(data) as dead:
        return not any(letter.replay for letter in dead.read())


def is_settled(runner: Runner, feed: Feed) -> bool:
    return runner.cursors == {0: feed.position}


def end_numbers(count: int) -> dict[int, int]:
    return {0: count}


@pytest.mark.parametrize("culprits", [(0,), (499,), (250,), (17, 18), (0, 100, 499)])
def test_one_bad_event_in_five_hundred_becomes_the_only_dead_letter(
    data: DataDir, feed: Feed, culprits: tuple[int, ...]
) -> None:
    async def main() -> None:
        sender = rejecting(*culprits)
        feed.write(*map(event, range(500)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            figures = runner.stats(end_numbers(500))
        assert sorted(sender.numbers) == [n for n in range(500) if n not in culprits]
        assert (len(culprits), 500 - len(culprits)) == (figures["dead"], figures["delivered"])
        check_sum(figures)
        assert len(sender.sent) <= 1 + 2 * 9 * len(culprits)

    run(main())
    assert sorted(culprits) == sorted(letters_of(data))
    assert [] == plans_on_disk(data, "hook")


def test_a_dead_letter_has_its_position_and_the_response(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = rejecting(3)
        feed.write(*map(event, range(8)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        with opened_letters(data) as dead:
            (letter,) = dead.read()
        assert (event(3), 400, "status 400", b'{"error":"invalid"}') == (
            letter.event,
            letter.status,
            letter.reason,
            letter.response,
        )
        assert (sender.ids[0], 3) == (letter.batch, letter.number)

    run(main())


def test_parts_have_their_own_ids_which_survive_a_crash(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        feed.write(*map(event, range(4)))
        first = FakeSender([NO, ZeroDivisionError()], limits=MANY)
        with pytest.raises(ZeroDivisionError):
            await make_runner(data, first).run()
        second = FakeSender(limits=MANY)
        runner = make_runner(data, second)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        assert [first.ids[1], first.sent[1]] == [second.ids[0], second.sent[0]]
        assert 4 == len(set(first.ids[:1] + second.ids) | {first.ids[1]}) + 1
        assert list(range(4)) == second.numbers

    run(main())


def test_after_a_crash_the_parts_of_a_batch_are_read_at_once(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read_ranges = plans_module.read_ranges  # type: ignore[attr-defined]

    def noted(*arguments: Any) -> Any:
        reads.append(arguments)
        return read_ranges(*arguments)

    monkeypatch.setattr(plans_module, "read_ranges", noted)

    async def main() -> None:
        feed.write(*map(event, range(40)))
        crashes = 25
        first = FakeSender(limits=MANY)
        first.judge = lambda _: NO if len(first.sent) < crashes else ZeroDivisionError()  # type: ignore[assignment,return-value]
        with pytest.raises(ZeroDivisionError):
            await make_runner(data, first).run()
        planned = plans_on_disk(data, "hook")
        assert len(planned) > 10
        second = FakeSender(limits=MANY)
        runner = make_runner(data, second)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            check_sum(runner.stats(end_numbers(40)))
        assert set(planned) == set(second.ids)
        assert list(range(40)) == sorted(second.numbers)
        assert 1 == len(reads)

    run(main())


def test_a_batch_that_is_too_large_makes_the_next_ones_smaller(data: DataDir, feed: Feed) -> None:
    def judge(batch: Batch) -> Outcome:
        too_large = Rejected("status 413", 413, is_too_large=True)
        return too_large if batch.size_bytes > 3000 else Accepted()

    async def main() -> None:
        sender = FakeSender(judge=judge, limits=BatchLimits(10_000, 10_000, 0.1))
        for n in range(400):
            feed.write(event(n, padding=80))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            before = len(sender.sent)
            for n in range(400, 600):
                feed.write(event(n, padding=80))
            await until(lambda: is_settled(runner, feed))
        assert sorted(sender.numbers) == list(range(600))
        sizes = [sum(map(len, lines)) for lines in sender.sent]
        assert sizes[0] > 9000
        assert 1000 < max(sizes[before:]) < 3000
        assert "dead" not in runner.counted

    run(main())


def test_events_that_are_too_large_do_not_make_batches_smaller(data: DataDir, feed: Feed) -> None:
    """Any client may send one, which must not slow down the others."""

    def judge(batch: Batch) -> Outcome:
        is_too_large = any(len(line) > 2000 for line in batch.lines())
        return Rejected("status 413", 413, is_too_large=True) if is_too_large else Accepted()

    async def main() -> None:
        sender = FakeSender(judge=judge, limits=BatchLimits(10_000, 10_000, 0.1))
        runner = make_runner(data, sender)
        async with running(runner):
            for start in range(0, 300, 100):
                feed.write(*(event(n, padding=80) for n in range(start, start + 60)))
                feed.write(event(start + 60, padding=5000))
                feed.write(*(event(n, padding=80) for n in range(start + 61, start + 100)))
                await until(lambda: is_settled(runner, feed))
            before = len(sender.sent)
            feed.write(*(event(n, padding=80) for n in range(300, 500)))
            await until(lambda: is_settled(runner, feed))
        assert max(sum(map(len, lines)) for lines in sender.sent[before:]) > 9000
        assert 3 == runner.counted["dead"]

    run(main())


def test_a_single_event_that_is_too_large_becomes_a_dead_letter(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = rejecting(1, outcome=Rejected("status 413", 413, is_too_large=True))
        feed.write(*map(event, range(3)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        assert [0, 2] == sorted(sender.numbers)

    run(main())
    assert [1] == letters_of(data)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 501])
def test_wrong_settings_hold_the_destination(data: DataDir, feed: Feed, status: int) -> None:
    timings = replace(QUICK, held_s=0.02)

    async def main() -> None:
        sender = FakeSender([Held(f"status {status}", status)] * 3)
        feed.write(*map(event, range(20)))
        runner = make_runner(data, sender, timings=timings)
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "held")
            await until(lambda: is_settled(runner, feed))
        assert list(range(20)) == sender.numbers
        assert [sender.ids[0]] * 4 == sender.ids[:4]
        assert 3 == runner.counted["failures"]

    run(main())


def test_a_destination_that_responds_410_gets_no_request_before_the_next_start(
    data: DataDir, feed: Feed
) -> None:
    hand = HandClock(a_look_s=0.0001)

    async def main() -> None:
        sender = FakeSender([Held("status 410", 410, is_final=True)])
        feed.write(event(0))
        runner = make_runner(data, sender, clock=hand.clock)
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "disabled")
            feed.write(event(1))
            hand.advance(1_000_000.0)
            await hand.looks(100)
            assert 1 == len(sender.sent)
            check_sum(runner.stats(end_numbers(2)))
        runner = make_runner(data, sender)
        async with running(runner):
            await sender.has(2)

    run(main())


def test_only_the_rest_of_a_partly_accepted_batch_is_retried(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        partly = Partial.of({1: Retry("status 429"), 3: NO, 4: Retry("status 503")})
        sender = FakeSender([partly], limits=MANY)
        feed.write(*map(event, range(6)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            check_sum(runner.stats(end_numbers(6)))
        assert [[event(1), event(4)]] == sender.sent[1:]
        assert [0, 2, 5, 1, 4] == sender.numbers
        assert (5, 1) == (runner.counted["delivered"], runner.counted["dead"])

    run(main())
    assert [3] == letters_of(data)


def test_single_events_keep_their_ids_in_a_part_of_the_batch(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        seen: list[list[str]] = []
        partly = Partial.of({2: Retry("no"), 5: Retry("no")})
        sender = FakeSender([partly], limits=MANY, on_send=lambda b: seen.append(b.event_ids()))
        feed.write(*map(event, range(6)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        assert [seen[0][2], seen[0][5]] == seen[1]

    run(main())


def test_old_events_become_dead_letters_when_an_attempt_fails(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("down", status=503)], limits=MANY)
        feed.write(event(0), received_ms=1000)
        runner = make_runner(data, sender, retry_for_s=3600.0)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            feed.write(event(1))
            await sender.has(1)
        assert [1] == sender.numbers

    run(main())
    assert [0] == letters_of(data)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_wrong_by_a_day_makes_no_dead_letter(
    data: DataDir, feed: Feed, days: int
) -> None:
    async def main() -> None:
        sender = FakeSender([Retry("down", status=503)] * 3, limits=MANY)
        hand = HandClock(a_look_s=0.0001)
        feed.write(event(0), received_ms=int(hand.now_s * 1000) + days * 86_400_000)
        runner = make_runner(data, sender, retry_for_s=259_200.0, clock=hand.clock)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
            assert 0.0 == runner.stats(end_numbers(1))["lag_s"]
        assert [0] == sender.numbers

    run(main())


def test_full_dead_letters_hold_the_destination(data: DataDir, feed: Feed) -> None:
    timings = replace(QUICK, held_s=0.01)

    async def main() -> None:
        sender = rejecting(1)
        feed.write(*map(event, range(3)))
        runner = make_runner(
            data, sender, timings=timings, dead_limits=DeadLetterLimits(5, on_full="hold")
        )
        async with running(runner):
            await until(lambda: runner.health.breaker.state == "held")
            assert "dead letters" in runner.last_error
        assert "dead" not in counters_on_disk(data, "hook")
        runner = make_runner(data, sender, timings=timings)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))

    run(main())
    assert [1] == letters_of(data)


def test_dead_letters_are_replayed_on_request(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = rejecting(2, 5)
        feed.write(*map(event, range(8)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed) and runner.counted.get("dead") == 2)
            dead = DeadLetters(data.dead_dir("hook") / "dead.db")
            sender.judge = lambda batch: NO if 5 in numbers(batch) else Accepted()
            assert 2 == dead.ask_for_replay()
            await until(lambda: runner.counted["dead"] == 1)
            await until(lambda: not any(each.replay for each in dead.read()))
            check_sum(runner.stats(end_numbers(8)))
        assert 2 in sender.numbers
        (letter,) = dead.read()
        assert event(5) == letter.event
        dead.close()

    run(main())


def test_a_crash_between_a_replay_and_its_record_counts_it_once(data: DataDir, feed: Feed) -> None:
    async def main() -> None:
        sender = rejecting(2)
        feed.write(*map(event, range(4)))
        runner = make_runner(data, sender)
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        dead = DeadLetters(data.dead_dir("hook") / "dead.db")
        dead.ask_for_replay()
        crashing = FakeSender([ZeroDivisionError()])
        with pytest.raises(ZeroDivisionError):
            await make_runner(data, crashing).run()
        last = FakeSender()
        runner = make_runner(data, last)
        async with running(runner):
            await until(lambda: runner.counted.get("dead") == 0)
            check_sum(runner.stats(end_numbers(4)))
        assert ([2], []) == (last.numbers, dead.read())
        assert [] == plans_on_disk(data, "hook")
        dead.close()

    run(main())


def test_replayed_dead_letters_that_a_crash_left_in_a_plan_count_as_delivered(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash came after they were removed, and before that was recorded in the state."""

    async def main() -> None:
        feed.write(*map(event, range(4)))
        runner = make_runner(data, rejecting(2))
        async with running(runner):
            await until(lambda: is_settled(runner, feed))
        ask_for_replay(data)
        replaying, last = FakeSender(), FakeSender()
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", fail_before_delivered)
            with pytest.raises(sqlite3.OperationalError):
                await make_runner(data, replaying).run()
        assert ([2], []) == (replaying.numbers, letters_of(data))
        assert 1 == len(plans_on_disk(data, "hook"))
        runner = make_runner(data, last)
        async with running(runner):
            await until(lambda: runner.counted.get("delivered") == 4)
            assert 0 == runner.counted["dead"]
            check_sum(runner.stats(end_numbers(4)))
        assert [] == last.sent

    run(main())


def test_replayed_dead_letters_that_failed_before_a_crash_stay_dead_letters(
    data: DataDir, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash came after their outcome was recorded there, and before that in the state."""

    async def main() -> None:
        feed.write(*map(event, range(8)))
        runner = make_runner(data, rejecting(2, 5))
        async with running(runner):
            await until(lambda: is_settled(runner, feed) and runner.counted.get("dead") == 2)
        ask_for_replay(data)
        replaying, last = rejecting(5), FakeSender()
        replaying.judge = lambda batch: Partial.of(
            {n: NO for n, each in enumerate(numbers(batch)) if each == 5}
        )
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", fail_before_delivered)
            with pytest.raises(sqlite3.OperationalError):
                await make_runner(data, replaying).run()
        runner = make_runner(data, last)
        async with running(runner):
            expected = {"delivered": 7, "dead": 1}
            await until(lambda: expected.items() <= runner.counted.items())
            assert [] == plans_on_disk(data, "hook")
            check_sum(runner.stats(end_numbers(8)))
        assert ([], [5]) == (last.sent, letters_of(data))

    run(main())
