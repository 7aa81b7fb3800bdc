"""What follows from a destination's answer: sent, sent again, halved, or a dead letter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry
from pixelfast.deliver.plans import Plan

__all__ = ["DeadLetter", "Refusals", "Settlement", "settle"]

_MOST_REFUSED = 0.2
_FEWEST_REFUSED = 10
_REMEMBERED_EVENTS = 10_000


class DeadLetter(NamedTuple):
    """An event that a destination does not want, and what it said."""

    batch: str
    number: int
    event: bytes
    status: int
    reason: str
    answer: bytes
    attempts: int


class Refusals:
    """Whether a destination refuses so much that something else than the events must be wrong.

    >>> refusals = Refusals()
    >>> [refusals.refuse(1) for _ in range(9)] == [True] * 9, refusals.refuse(1)
    (True, False)
    """

    def __init__(self) -> None:
        self._accepted = 0
        self._refused = 0
        self.is_holding = False

    def accept(self, events: int) -> None:
        if self.is_holding:
            self.is_holding, self._refused = False, 0
        self._accepted += events
        if self._accepted + self._refused > _REMEMBERED_EVENTS:
            self._accepted //= 2
            self._refused //= 2

    def refuse(self, events: int) -> bool:
        """Count events that are to become dead letters; False where they are too many."""
        self._refused += events
        share = self._refused / (self._refused + self._accepted)
        self.is_holding = self._refused >= _FEWEST_REFUSED and share > _MOST_REFUSED
        return not self.is_holding


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


def settle(
    plan: Plan,
    batch: Batch,
    outcome: Outcome,
    refusals: Refusals,
    *,
    is_too_old: bool,
    room_bytes: int,
) -> Settlement:
    """What follows from an answer.

    `is_too_old`: events that are not delivered now become dead letters. `room_bytes`: how many more
    of those may be kept.
    """
    settlement = Settlement()
    if isinstance(outcome, Accepted):
        refusals.accept(plan.events)
        settlement.memory = outcome.memory
        _deliver(settlement, plan, ())
    elif isinstance(outcome, Retry):
        if is_too_old:
            all_failed = dict.fromkeys(range(plan.events), outcome)
            _bury(settlement, plan, batch, all_failed, room_bytes)
    elif isinstance(outcome, Refused):
        _refuse(settlement, plan, batch, outcome, refusals, room_bytes)
    elif isinstance(outcome, Partial):
        _divide(settlement, plan, batch, outcome, refusals, is_too_old, room_bytes)
    elif isinstance(outcome, Held):
        settlement.hold = outcome.reason
    return settlement


def _refuse(
    settlement: Settlement,
    plan: Plan,
    batch: Batch,
    outcome: Refused,
    refusals: Refusals,
    room_bytes: int,
) -> None:
    """Halve down to the events that are to blame."""
    if refusals.is_holding:
        settlement.hold = _too_many(outcome)
    elif plan.events > 1:
        middle = plan.events // 2
        places = list(range(plan.events))
        settlement.parts = [plan.part(batch, places[:middle]), plan.part(batch, places[middle:])]
        settlement.has_ended = True
    elif refusals.refuse(1):
        _bury(settlement, plan, batch, {0: outcome}, room_bytes)
    else:
        settlement.hold = _too_many(outcome)


def _divide(
    settlement: Settlement,
    plan: Plan,
    batch: Batch,
    outcome: Partial,
    refusals: Refusals,
    is_too_old: bool,
    room_bytes: int,
) -> None:
    """Some events are there, some are refused, some are to be sent again."""
    refused = {n: each for n, each in outcome.failed.items() if isinstance(each, Refused)}
    later = {n: each for n, each in outcome.failed.items() if isinstance(each, Retry)}
    arrived = plan.events - len(outcome.failed)
    if arrived:
        refusals.accept(arrived)
    buried: dict[int, Refused | Retry] = {**refused, **(later if is_too_old else {})}
    again = set() if is_too_old else set(later)
    if refused and not refusals.refuse(len(refused)):
        settlement.hold = _too_many(next(iter(refused.values())))
        again |= set(refused)
        buried = {n: each for n, each in buried.items() if n not in refused}
    if buried and not _bury(settlement, plan, batch, buried, room_bytes):
        again |= set(buried)
        buried = {}
    if len(again) == plan.events:
        settlement.has_ended = False
        return
    if again:
        settlement.parts = [plan.part(batch, sorted(again))]
    _deliver(settlement, plan, again | set(buried))


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
    room_bytes: int,
) -> bool:
    """Make events dead letters; False where there is no room for them."""
    if plan.letters is not None:
        settlement.refused_again |= {plan.letters[n]: each for n, each in failed.items()}
        settlement.has_ended = True
        return True
    lines = batch.lines()
    if sum(len(lines[n]) for n in failed) > room_bytes:
        settlement.hold = f"no room for more dead letters, {room_bytes:,} bytes left"
        return False
    numbers = plan.numbers or range(plan.events)
    settlement.letters += [
        DeadLetter(
            plan.root, numbers[n], lines[n], each.status, each.reason, each.answer, plan.attempts
        )
        for n, each in failed.items()
    ]
    _count(settlement, "dead", len(failed))
    settlement.has_ended = True
    return True


def _count(settlement: Settlement, name: str, events: int) -> None:
    if events:
        settlement.counted[name] = settlement.counted.get(name, 0) + events


def _too_many(outcome: Refused) -> str:
    return f"more than {_MOST_REFUSED:.0%} of the events are refused: {outcome.reason}"
