"""Dividing a batch, and settling a response."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from zlib import crc32

import pytest

from pixelfast.deliver.batches import Batch, BatchLimits, Run
from pixelfast.deliver.bundles import Bundle
from pixelfast.deliver.excerpts import Excerpts
from pixelfast.deliver.outcomes import Accepted, Failures, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.rejections import Rejections
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.settlement import Settlement, Situation, dead_letters, settle
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import Timings
from pixelfast.spool import DataDir
from tests.deliver.runners import make_runner, running
from tests.deliver.running import run, watch
from tests.deliver.spools import event
from tests.spools import Feed
from tests.waiting import until

NO = Rejected("status 400", 400, b"bad")
LATER = Retry("status 503", status=503)
SOURCES = ("web", "web", "mail", "web")
LINES = tuple(b'{"n":%d}' % n for n in range(4))


def task(dead_letters: list[int] | None = None) -> Task:
    body = b"".join(line + b"\n" for line in LINES)
    plan = Plan(
        id="whole", root="whole", sequence=7, events=4, size_bytes=len(body), checksum=crc32(body),
        oldest_ms=5, dead_letters=dead_letters, attempts=2,
    )  # fmt: skip
    runs = (Run("web", 2), Run("mail", 1), Run("web", 1))
    return Task(plan, plan.batch(body, runs))


def batch_of(made: Task) -> Batch:
    assert made.batch is not None
    return made.batch


def settled(made: Task, outcome: Outcome, free_bytes: float = float("inf")) -> Settlement:
    """Settle an outcome after other events were accepted."""
    rejections = Rejections(Timings())
    rejections.accept("other", 1, now_s=2.0)
    situation = Situation(began_s=1.0, now_s=2.0, free_bytes=free_bytes)
    return settle(made, outcome, rejections, situation)


def test_a_part_has_the_events_and_sources_of_its_positions() -> None:
    (part,) = task().divided([[1, 2]])
    assert list(LINES[1:3]) == batch_of(part).lines()
    assert ["web", "mail"] == batch_of(part).sources()
    assert (2, [1, 2], 4) == (part.plan.events, part.plan.numbers, part.plan.whole)
    assert (crc32(b'{"n":1}\n{"n":2}\n'), 16) == (part.plan.checksum, part.plan.size_bytes)
    assert ("whole", 7, 5, 2) == (
        part.plan.root,
        part.plan.sequence,
        part.plan.oldest_ms,
        part.plan.attempts,
    )
    assert (part.plan.id, "whole") == (batch_of(part).id, batch_of(part).root)


def test_a_part_of_a_part_refers_to_the_whole_and_has_the_same_id_in_any_order() -> None:
    (half,) = task().divided([[1, 2, 3]])
    (twice,) = half.divided([[1, 2]])
    (once,) = task().divided([[2, 3]])
    assert once.plan == twice.plan
    assert ["whole-2", "whole-3"] == batch_of(twice).event_ids()


def test_parts_of_dead_letters_keep_their_ids() -> None:
    parts = task(dead_letters=[10, 11, 12, 13]).divided([[0, 3], [2]])
    assert [[10, 13], [12]] == [part.plan.dead_letters for part in parts]


@pytest.mark.parametrize("failed_s", [0.0, 3.0])
def test_a_part_inherits_the_delay_and_failure_of_the_whole(failed_s: float) -> None:
    made = replace(task(), not_before_s=9.0, failed_s=failed_s, rejected_s=4.0, failures=5)
    (part,) = made.divided([[0]])
    assert (9.0, failed_s, 4.0) == (part.not_before_s, part.failed_s, part.rejected_s)
    assert (failed_s > 0, 0, False) == (part.is_part, part.failures, part.is_culprit)


def test_an_accepted_batch_ends() -> None:
    settlement = settled(task(), Accepted({"file": "a"}))
    assert Settlement(True, memory={"file": "a"}, counted={"delivered": 4}) == settlement


def test_a_rejected_batch_is_divided() -> None:
    settlement = settled(task(), NO)
    assert [range(2), range(2, 4)] == settlement.groups
    assert ({}, {}, True) == (dict(settlement.dead), settlement.counted, settlement.has_ended)


def test_the_rest_of_a_partly_accepted_batch_becomes_dead_letters_or_is_retried() -> None:
    settlement = settled(task(), Partial.of({1: NO, 3: LATER}))
    assert ([[3]], {1: NO}) == (settlement.groups, dict(settlement.dead))
    assert {"delivered": 2, "dead": 1} == settlement.counted


def test_events_to_retry_that_are_too_old_become_dead_letters_and_are_not_retried() -> None:
    rejections = Rejections(Timings())
    situation = Situation(began_s=1.0, now_s=2.0, is_too_old=True)
    settlement = settle(task(), Partial.of({1: NO, 3: LATER}), rejections, situation)
    assert ([], {1: NO, 3: LATER}) == (settlement.groups, dict(settlement.dead))
    assert {"delivered": 2, "dead": 2} == settlement.counted


def test_dead_letters_have_the_positions_of_their_events() -> None:
    (half,) = task().divided([[2, 3]])
    (bundle,) = dead_letters(half, Failures.of({0: NO}))
    event, response = Excerpts.of([LINES[2]]), Excerpts.of([b"bad"])
    assert Bundle("whole", 2, "mail", 400, "status 400", [2], event, response) == bundle


def test_events_that_exceed_the_limit_of_dead_letters_hold_the_destination() -> None:
    settlement = settled(task(), Partial.of({0: NO, 1: NO, 2: NO}), free_bytes=15.0)
    assert ({0: NO, 1: NO}, [[2]]) == (dict(settlement.dead), settlement.groups)
    assert "the dead letters have reached their size limit" == settlement.hold
    assert {"delivered": 1, "dead": 2} == settlement.counted


def test_delivered_dead_letters_are_removed_and_the_others_kept() -> None:
    settlement = settled(task(dead_letters=[10, 11, 12, 13]), Partial.of({1: NO}))
    assert [10, 12, 13] == settlement.replayed
    assert {11: NO} == settlement.rejected_again
    assert {"delivered": 3, "dead": -3} == settlement.counted


# --- the loop meanwhile ----------------------------------------------------------------------

MANY = 10_000
MAX_TURN_S = 0.010  # of CPU time
ENDS = ("delivered", "dead")


class Large(Sender):
    """Accepts batches of 10,000 events, except that the first one gets this outcome."""

    limits = BatchLimits(MANY, 2**24, 60.0)

    def __init__(self, first: Outcome) -> None:
        self.first = first

    async def open(self, memory: dict[str, object]) -> None: ...

    async def send(self, batch: Batch) -> Outcome:
        return self.first if batch.events == MANY else Accepted()

    async def close(self) -> None: ...


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("segment_bytes", [2**22])
@pytest.mark.parametrize(
    ("first", "dead"),
    [
        (NO, 0),
        (Partial.of(dict.fromkeys(range(0, MANY, 2), NO)), MANY // 2),
        (Partial.of(dict.fromkeys(range(0, MANY, 2), Retry("status 503"))), 0),
        (Partial.of({n: NO if n % 3 else Retry("status 503") for n in range(1, MANY)}), 6666),
    ],
    ids=["rejected", "dead", "again", "both"],
)
def test_no_response_to_a_large_batch_blocks_the_loop(
    data: DataDir, feed: Feed, first: Outcome, dead: int
) -> None:
    turns_s: list[float] = []

    async def main() -> None:
        for start in range(0, MANY, 500):
            feed.write(*(event(n, padding=40) for n in range(start, start + 500)))
        runner = make_runner(data, Large(first))
        async with running(runner):
            await until(lambda: runner.is_open)
            watcher = asyncio.create_task(watch(turns_s))
            await until(lambda: sum(runner.counted.get(each, 0) for each in ENDS) == MANY)
            watcher.cancel()
        assert (MANY - dead, dead) == tuple(runner.counted.get(each, 0) for each in ENDS)

    run(main())
    assert max(turns_s) < MAX_TURN_S
