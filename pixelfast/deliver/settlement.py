"""What follows from a destination's answer: sent, sent again, divided, or a dead letter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.refusals import Refusals

__all__ = ["DeadLetter", "Settlement", "Situation", "settle"]


class DeadLetter(NamedTuple):
    """An event that a destination does not want, and what it said."""

    batch: str
    number: int
    event: bytes
    status: int
    reason: str
    answer: bytes
    attempts: int
    source: str = ""


class Situation(NamedTuple):
    """What decides, beside the answer, about a batch.

    Attributes:
        began_s: when the request began.
        now_s: when the answer came.
        is_too_old: events that are not delivered now become dead letters.
        is_at_fault: the batch fails while others are accepted.
        refused_s: when the same events were rejected before; 0: they were not.
        is_final: there is nothing more to learn of events that are rejected.
        room_bytes: how many more bytes of dead letters may be kept.
    """

    began_s: float = 0.0
    now_s: float = 0.0
    is_too_old: bool = False
    is_at_fault: bool = False
    refused_s: float = 0.0
    is_final: bool = False
    room_bytes: float = float("inf")


@dataclass(slots=True)
class Settlement:
    """What is to be done. A plan that neither ended nor is held is sent again after a while."""

    has_ended: bool = False
    parts: list[tuple[Plan, Batch]] = field(default_factory=list)  # planned instead of it
    letters: list[DeadLetter] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)  # ids of letters that have arrived
    refused_again: dict[int, Refused | Retry] = field(default_factory=dict)  # those that have not
    memory: dict[str, object] | None = None
    counted: dict[str, int] = field(default_factory=dict)
    hold: str = ""  # why the destination is to be held
    is_unproven: bool = False  # rejected; whether the events are to blame will turn out


def settle(
    plan: Plan, batch: Batch, outcome: Outcome, refusals: Refusals, situation: Situation
) -> Settlement:
    """What follows from an answer; what was accepted and rejected is counted in `refusals`."""
    settlement = Settlement()
    if isinstance(outcome, Accepted):
        refusals.accept(plan.root, plan.events, situation.now_s)
        settlement.memory = outcome.memory
        _deliver(settlement, plan, ())
    elif isinstance(outcome, Retry):
        if situation.is_at_fault and plan.events > 1:
            _split(settlement, plan, batch, refusals.part_events(plan.events))
        elif situation.is_too_old:
            all_failed = dict.fromkeys(range(plan.events), outcome)
            _end(settlement, plan, batch, all_failed, set(), situation)
    elif isinstance(outcome, Refused):
        if plan.events > 1:
            half = (plan.events + 1) // 2
            size = half if outcome.is_too_large else refusals.part_events(plan.events)
            _split(settlement, plan, batch, size)
        elif _are_bad(settlement, plan, 1, refusals, situation):
            _end(settlement, plan, batch, {0: outcome}, set(), situation)
    elif isinstance(outcome, Partial):
        _divide(settlement, plan, batch, outcome, refusals, situation)
    elif isinstance(outcome, Held):
        settlement.hold = outcome.reason
    return settlement


def _split(settlement: Settlement, plan: Plan, batch: Batch, size: int) -> None:
    """Look in smaller parts for the events that are to blame."""
    places = range(plan.events)
    groups = [places[start : start + size] for start in range(0, plan.events, size)]
    settlement.parts = plan.parts(batch, groups)
    settlement.has_ended = True


def _divide(
    settlement: Settlement,
    plan: Plan,
    batch: Batch,
    outcome: Partial,
    refusals: Refusals,
    situation: Situation,
) -> None:
    """Some events are there, some are rejected, some are to be sent again."""
    refused = {n: each for n, each in outcome.failed.items() if isinstance(each, Refused)}
    later = {n: each for n, each in outcome.failed.items() if isinstance(each, Retry)}
    arrived = plan.events - len(outcome.failed)
    if arrived:
        refusals.accept(plan.root, arrived, situation.now_s)
    buried: dict[int, Refused | Retry] = {**refused, **(later if situation.is_too_old else {})}
    again = set() if situation.is_too_old else set(later)
    if refused and not arrived and again:
        # Apart, so that it turns out of each what is wrong with it: neither waits for the other.
        settlement.parts = plan.parts(batch, [sorted(refused), sorted(again)])
        settlement.has_ended = True
        return
    if refused and not _are_bad(settlement, plan, len(refused), refusals, situation):
        return
    _end(settlement, plan, batch, buried, again, situation)


def _end(
    settlement: Settlement,
    plan: Plan,
    batch: Batch,
    buried: Mapping[int, Refused | Retry],
    again: set[int],
    situation: Situation,
) -> None:
    """Bury some events, send some again; all others have arrived."""
    again = again | _bury(settlement, plan, batch, buried, situation)
    if len(again) == plan.events:
        return
    if again:
        settlement.parts = plan.parts(batch, [sorted(again)])
    _deliver(settlement, plan, again | set(buried))


def _are_bad(
    settlement: Settlement, plan: Plan, events: int, refusals: Refusals, situation: Situation
) -> bool:
    """Count rejected events; whether they are to blame themselves, as far as is known."""
    if plan.letters is not None:
        return True
    if not situation.refused_s:
        refusals.refuse(plan.root, events, plan.whole or plan.events, situation.now_s)
    is_known = (
        situation.is_final
        or situation.is_too_old
        or 0 < situation.refused_s <= refusals.accepted_s
        or refusals.are_bad(plan.root, situation.began_s)
    )
    settlement.is_unproven = not is_known
    return is_known


def _deliver(settlement: Settlement, plan: Plan, but: Collection[int]) -> None:
    arrived = [n for n in range(plan.events) if n not in but]
    if plan.letters is not None:
        settlement.replayed = [plan.letters[n] for n in arrived]
        _count(settlement, "dead", -len(arrived))
    _count(settlement, "delivered", len(arrived))
    settlement.has_ended = True


def _bury(
    settlement: Settlement,
    plan: Plan,
    batch: Batch,
    failed: Mapping[int, Refused | Retry],
    situation: Situation,
) -> set[int]:
    """Make events dead letters; returns those that there is no room for."""
    if plan.letters is not None:
        settlement.refused_again |= {plan.letters[n]: each for n, each in failed.items()}
        return set()
    lines, sources = batch.lines(), batch.sources()
    numbers = plan.numbers or range(plan.events)
    room_bytes = situation.room_bytes
    without = set()
    for n, each in failed.items():
        if len(lines[n]) > room_bytes:
            settlement.hold = "no room for more dead letters"
            without.add(n)
            continue
        room_bytes -= len(lines[n])
        settlement.letters.append(
            DeadLetter(
                plan.root,
                numbers[n],
                lines[n],
                each.status,
                each.reason,
                each.answer,
                plan.attempts,
                sources[n],
            )
        )
    _count(settlement, "dead", len(failed) - len(without))
    return without


def _count(settlement: Settlement, name: str, events: int) -> None:
    if events:
        settlement.counted[name] = settlement.counted.get(name, 0) + events
