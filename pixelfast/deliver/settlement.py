"""Deciding what follows from an outcome: delivered, retried, divided, or dead letters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pixelfast.deliver.batches import Run
from pixelfast.deliver.bundles import Bundle
from pixelfast.deliver.lines import pick_lines
from pixelfast.deliver.outcomes import (
    Accepted,
    FailureGroup,
    Failures,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
)
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.rejections import Rejections
from pixelfast.deliver.tasks import Task

__all__ = ["Settlement", "Situation", "dead_letters", "settle"]


class Situation(NamedTuple):
    """The facts besides the outcome that decide about a batch.

    Attributes:
        began_s: when the request began.
        now_s: when its outcome was known.
        is_too_old: whether events that are not delivered now become dead letters.
        is_at_fault: whether the batch fails while others are accepted.
        rejected_s: when the same events were rejected before; 0 if they were not.
        is_final: whether rejected events become dead letters without further proof.
        free_bytes: how many more bytes of dead letters may be kept.
    """

    began_s: float = 0.0
    now_s: float = 0.0
    is_too_old: bool = False
    is_at_fault: bool = False
    rejected_s: float = 0.0
    is_final: bool = False
    free_bytes: float = float("inf")


@dataclass(slots=True)
class Settlement:
    """What to do with a task. A task that has not ended is retried later.

    Attributes:
        has_ended: whether the plan ends.
        groups: events that are planned again, as the positions of the events of each new part.
        dead: the failures of the events that become dead letters.
        replayed: ids of dead letters that were delivered.
        rejected_again: ids of dead letters that failed again, and how.
        memory: what the destination asked to remember.
        counted: numbers to add to the totals.
        hold: why the destination is to be held; "" if it is not.
        is_unproven: whether it is not known yet if the rejected events are bad.
    """

    has_ended: bool = False
    groups: list[Sequence[int]] = field(default_factory=list)
    dead: Failures = field(default_factory=Failures)
    replayed: list[int] = field(default_factory=list)
    rejected_again: dict[int, Rejected | Retry] = field(default_factory=dict)
    memory: dict[str, object] | None = None
    counted: dict[str, int] = field(default_factory=dict)
    hold: str = ""
    is_unproven: bool = False


def dead_letters(task: Task, dead: Failures) -> list[Bundle]:
    """Make dead letters of events of a task.

    Takes some milliseconds for 10,000 events.
    """
    return [bundle for group in dead.groups for bundle in _bundles(task, group)]


def _bundles(task: Task, group: FailureGroup) -> Iterator[Bundle]:
    """Yield a bundle for each source."""
    batch, plan = task.batch, task.plan
    assert batch is not None
    events = pick_lines(batch.body, group.places)
    by_source = _by_source(batch.runs, group.places)
    for source, chosen in by_source.items():
        is_all = len(by_source) == 1
        places = list(group.places) if is_all else [group.places[n] for n in chosen]
        yield Bundle(
            plan.root,
            plan.attempts,
            source,
            group.why.status,
            group.why.reason,
            [plan.numbers[place] for place in places] if plan.numbers else places,
            events if is_all else events.picked(chosen),
            group.responses if is_all else group.responses.picked(chosen),
        )


def _by_source(runs: Iterable[Run], places: Sequence[int]) -> dict[str, list[int]]:
    """Return which of the places belong to events of each source, as indexes of `places`."""
    if not runs:
        return {"": list(range(len(places)))}
    found: dict[str, list[int]] = {}
    start = end = 0
    for run in runs:
        end += run.events
        stop = bisect_left(places, end, start)
        if stop > start:
            found.setdefault(run.source, []).extend(range(start, stop))
        start = stop
    return found


def settle(
    task: Task, outcome: Outcome, rejections: Rejections, situation: Situation
) -> Settlement:
    """Return what follows from an outcome; count accepted and rejected events in `rejections`.

    The task and its events are not changed; the caller carries out the settlement.
    """
    plan = task.plan
    settlement = Settlement()
    if isinstance(outcome, Accepted):
        rejections.accept(plan.root, plan.events, situation.now_s)
        settlement.memory = outcome.memory
        _deliver(settlement, plan, ())
    elif isinstance(outcome, Retry):
        if situation.is_at_fault and plan.events > 1:
            _split(settlement, plan, rejections.part_events(plan.events))
        elif situation.is_too_old:
            _end(settlement, task, Failures.same(outcome, range(plan.events)), set(), situation)
    elif isinstance(outcome, Rejected):
        if plan.events > 1:
            half = (plan.events + 1) // 2
            size = half if outcome.is_too_large else rejections.part_events(plan.events)
            _split(settlement, plan, size)
        elif _are_bad(settlement, plan, 1, rejections, situation):
            _end(settlement, task, Failures.same(outcome, [0]), set(), situation)
    elif isinstance(outcome, Partial):
        _divide(settlement, task, outcome, rejections, situation)
    elif isinstance(outcome, Held):
        settlement.hold = outcome.reason
    return settlement


def _split(settlement: Settlement, plan: Plan, size: int) -> None:
    """Divide the batch into parts of `size` events to find the bad ones."""
    places = range(plan.events)
    settlement.groups = [places[start : start + size] for start in range(0, plan.events, size)]
    settlement.has_ended = True


def _divide(
    settlement: Settlement,
    task: Task,
    outcome: Partial,
    rejections: Rejections,
    situation: Situation,
) -> None:
    """Settle a batch of which some events are delivered, some rejected and some to be retried."""
    plan = task.plan
    rejected, later = outcome.failed.only(Rejected), outcome.failed.only(Retry)
    arrived = plan.events - len(outcome.failed)
    if arrived:
        rejections.accept(plan.root, arrived, situation.now_s)
    buried = outcome.failed if situation.is_too_old else rejected
    again = set() if situation.is_too_old else set(later)
    if rejected and not arrived and again:
        # Separate plans, so that neither group waits for the other.
        settlement.groups = [sorted(rejected), sorted(again)]
        settlement.has_ended = True
        return
    if rejected and not _are_bad(settlement, plan, len(rejected), rejections, situation):
        return
    _end(settlement, task, buried, again, situation)


def _end(
    settlement: Settlement,
    task: Task,
    buried: Failures,
    again: set[int],
    situation: Situation,
) -> None:
    """Make some events dead letters and retry some; all others are delivered."""
    again = again | _bury(settlement, task, buried, situation)
    if len(again) == task.plan.events:
        return
    if again:
        settlement.groups = [sorted(again)]
    _deliver(settlement, task.plan, again | set(buried))


def _are_bad(
    settlement: Settlement, plan: Plan, events: int, rejections: Rejections, situation: Situation
) -> bool:
    """Count rejected events; return whether they are certainly bad."""
    if plan.dead_letters is not None:
        return True
    if not situation.rejected_s:
        rejections.reject(plan.root, events, plan.whole or plan.events, situation.now_s)
    is_known = (
        situation.is_final
        or situation.is_too_old
        or 0 < situation.rejected_s <= rejections.accepted_s
        or rejections.are_bad(plan.root, situation.began_s)
    )
    settlement.is_unproven = not is_known
    return is_known


def _deliver(settlement: Settlement, plan: Plan, excluded: Collection[int]) -> None:
    """Count the events of a plan as delivered, except those at the excluded positions."""
    arrived = plan.events - len(excluded)
    if plan.dead_letters is not None:
        settlement.replayed = [
            each for n, each in enumerate(plan.dead_letters) if n not in excluded
        ]
        _count(settlement, "dead", -arrived)
    _count(settlement, "delivered", arrived)
    settlement.has_ended = True


def _bury(
    settlement: Settlement,
    task: Task,
    failed: Failures,
    situation: Situation,
) -> set[int]:
    """Make events dead letters; return the positions of those that exceed their limit."""
    letters = task.plan.dead_letters
    if letters is not None:
        settlement.rejected_again |= {letters[n]: each for n, each in failed.items()}
        return set()
    excess = _beyond_limit(task, failed, situation.free_bytes)
    if excess:
        settlement.hold = "the dead letters have reached their size limit"
        failed = failed.without(excess)
    settlement.dead = failed
    _count(settlement, "dead", len(failed))
    return excess


def _beyond_limit(task: Task, places: Iterable[int], free_bytes: float) -> set[int]:
    """Return the positions of the events that do not fit into `free_bytes`."""
    excess: set[int] = set()
    assert task.batch is not None
    if task.batch.size_bytes <= free_bytes:
        return excess
    places = sorted(places)
    sizes = pick_lines(task.batch.body, places).sizes()
    for n, size_bytes in zip(places, sizes, strict=True):
        if size_bytes > free_bytes:
            excess.add(n)
        else:
            free_bytes -= size_bytes
    return excess


def _count(settlement: Settlement, name: str, events: int) -> None:
    if events:
        settlement.counted[name] = settlement.counted.get(name, 0) + events
