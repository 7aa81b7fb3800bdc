"""A batch that is being delivered: its plan, its events in memory, and its failures."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from zlib_ng.zlib_ng import crc32

from pixelfast.deliver.batches import Batch, Cut, read_ranges, some_events
from pixelfast.deliver.bundles import DeadLetter
from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.outcomes import BUSY_STATUSES, Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.selection import Selection

__all__ = ["Task", "events_of_dead_letters"]

_PATIENCE = 2  # failures of a batch before its events are blamed
_PATIENCE_IF_BUSY = 10


@dataclass(slots=True, eq=False)
class Task:
    """One batch from the moment it is planned until it is settled.

    Attributes:
        plan: the part of it that is stored on the disk.
        batch: its events; None if they are not in memory.
        not_before_s: when it may be sent; 0 if at once.
        sent_s: when it was last sent; 0 if never.
        failures: how often it failed after its destination had accepted other events since the
            previous failure.
        failed_s: when it last failed; a part begins with the time of the whole batch.
        is_part: whether it is a part of a batch that failed while others were accepted.
        is_culprit: whether it is one event that makes its destination fail.
        outcome: its last failure.
        rejected_s: when it was rejected while the cause was not known yet; 0 if never.
    """

    plan: Plan
    batch: Batch | None = None
    not_before_s: float = 0.0
    sent_s: float = 0.0
    failures: int = 0
    failed_s: float = 0.0
    is_part: bool = False
    is_culprit: bool = False
    outcome: Retry | None = None
    rejected_s: float = 0.0

    # --- making -----------------------------------------------------------------------------

    @classmethod
    def of_cut(cls, cut: Cut, sequence: int, selection: Selection, identity: str) -> Task:
        """Plan a batch that was cut, with the id `identity`."""
        found = cut.batch()
        plan = Plan(
            id=identity,
            root=identity,
            sequence=sequence,
            events=cut.events,
            size_bytes=cut.size_bytes,
            checksum=crc32(found.body),
            oldest_ms=cut.oldest_ms,
            ranges=cut.ranges,
            selection=selection,
        )
        return cls(plan, plan.batch(found.body, found.runs))

    @classmethod
    def of_dead_letters(cls, letters: Sequence[DeadLetter], sequence: int) -> Task:
        """Plan dead letters for replay."""
        identity = uuid.uuid4().hex
        found = events_of_dead_letters(letters)
        plan = Plan(
            id=identity,
            root=identity,
            sequence=sequence,
            events=found.events,
            size_bytes=found.size_bytes,
            checksum=crc32(found.body),
            oldest_ms=0,
            dead_letters=[each.id for each in letters],
        )
        return cls(plan, plan.batch(found.body, found.runs))

    @classmethod
    def of_rest(cls, plan: Plan, log: EventLog) -> Task | None:
        """Plan the events of a plan that the log still has; return None if it has none.

        Blocks.
        """
        found = read_ranges(log, plan.ranges, plan.selection)
        if not found.events:
            return None
        identity = uuid.uuid4().hex
        rest = msgspec.structs.replace(
            plan,
            id=identity,
            root=identity,
            numbers=None,
            whole=0,
            events=found.events,
            size_bytes=found.size_bytes,
            checksum=crc32(found.body),
        )
        return cls(rest, rest.batch(found.body, found.runs))

    def divided(self, groups: Iterable[Sequence[int]]) -> list[Task]:
        """Plan a part of the batch for each group of positions in it.

        The parts inherit when the batch may be sent, and when it failed and was rejected. Takes
        some milliseconds for 10,000 events.
        """
        assert self.batch is not None
        lines, sources = self.batch.lines(), self.batch.sources()
        return [self._part(places, lines, sources) for places in groups]

    def _part(self, places: Sequence[int], lines: list[bytes], sources: list[str]) -> Task:
        plan = self.plan
        some = some_events(lines, sources, places)
        numbers = [plan.numbers[place] for place in places] if plan.numbers else list(places)
        part = msgspec.structs.replace(
            plan,
            id=f"{plan.root}-{crc32(repr(numbers).encode()):08x}",
            numbers=numbers,
            whole=plan.whole or plan.events,
            dead_letters=None
            if plan.dead_letters is None
            else [plan.dead_letters[place] for place in places],
            events=len(places),
            size_bytes=some.size_bytes,
            checksum=crc32(some.body),
        )
        return Task(
            part,
            part.batch(some.body, some.runs),
            not_before_s=self.not_before_s,
            failed_s=self.failed_s,
            is_part=self.failed_s > 0,
            rejected_s=self.rejected_s,
        )

    # --- failures ---------------------------------------------------------------------------

    def is_at_fault(
        self,
        outcome: Retry,
        accepted_s: float,
        now_s: float,
        *,
        recent_s: float,
    ) -> bool:
        """Count a failure; return whether the events are to blame.

        A destination that crashes on an event, or never responds to it, still accepts other
        batches. The events are therefore to blame only if other events were accepted
        (`accepted_s`) since the previous failure; while the destination is down, it accepts
        nothing. If the destination is known to fail for some events, an acceptance at most
        `recent_s` before the first failure is enough. Otherwise `recent_s` is 0.
        """
        before_s, self.failed_s, self.outcome = self.failed_s, now_s, outcome
        since_s = before_s or (now_s if self.is_busy else now_s - recent_s)
        if accepted_s <= since_s:
            self.failures = max(self.failures, 0 if before_s else 1)
            return False
        self.failures += 1
        if self.is_busy:
            return self.failures >= _PATIENCE_IF_BUSY
        return self.failures >= (1 if self.is_part or not before_s else _PATIENCE)

    @property
    def is_busy(self) -> bool:
        """Whether its destination said last that it is busy, which may be true."""
        return self.outcome is not None and bool(
            self.outcome.status in BUSY_STATUSES or self.outcome.after_s
        )


def events_of_dead_letters(letters: Sequence[DeadLetter]) -> Batch:
    """Return the events of dead letters, with their sources."""
    events, sources = [each.event for each in letters], [each.source for each in letters]
    return some_events(events, sources, range(len(events)))
