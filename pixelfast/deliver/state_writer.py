"""Writing the state of a destination; changes are collected and written in one transaction.

New plans are written at most 20 times a second, settled ones after 200 ms or 64 batches. A batch
may be sent after its plan is written. A dead letter is written before its plan is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from pixelfast.deliver.batches import Batch, BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.dead_keeper import LogThrottle
from pixelfast.deliver.home import Home, StateStore
from pixelfast.deliver.outcomes import Failures, Rejected, Retry
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.settlement import Settlement, dead_letters
from pixelfast.deliver.store import Changes
from pixelfast.deliver.tasks import Task, events_of_dead_letters
from pixelfast.deliver.threads import OwnThread
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import Position

__all__ = ["StateWriter"]

_MAX_ENDS = 64
_PLAN_BYTES = 1024  # memory of a plan whose events are not in memory


@dataclass(slots=True)
class Transaction:
    """The changes that are written together.

    Batches are divided, and dead letters are made, in the thread that writes, because that takes
    too long for the event loop with 10,000 events.

    Attributes:
        changes: the changes of the state database.
        planned: tasks whose plans are new.
        roots: the ids of the batches that new plans and parts belong to.
        divided: settled tasks, and the positions of the events of each part that replaces them.
        buried: settled tasks, and the failures of their events that become dead letters.
        settled_bytes: the memory that the events of `divided` and `buried` use until then.
        replayed: ids of dead letters that were delivered.
        rejected_again: ids of dead letters that failed again, and how.
    """

    changes: Changes = field(default_factory=Changes)
    planned: list[Task] = field(default_factory=list)
    roots: set[str] = field(default_factory=set)
    divided: list[tuple[Task, list[Sequence[int]]]] = field(default_factory=list)
    settled_bytes: int = 0
    buried: list[tuple[Task, Failures]] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)
    rejected_again: dict[int, Rejected | Retry] = field(default_factory=dict)

    @property
    def has_plans(self) -> bool:
        """Whether it has plans that may be sent once they are written."""
        return bool(self.planned or self.divided)


class StateWriter:
    """Keep the state of a destination; all calls that block for the disk run in its thread.

    Attributes:
        cursors: where cutting continues, as stored on the disk.
        numbers: the numbers of the events there when the last run ended.
        counted: totals since the destination was registered, as stored on the disk.
        memory: what the destination asked to remember.
        planned_events: the number of events in plans that have not ended.
        waiting_bytes: the memory that these events use.
        dead: the dead letters.
    """

    def __init__(
        self,
        name: str,
        home: Home,
        thread: OwnThread,
        wake_up: Callable[[], None],
        dead_limits: DeadLetterLimits,
        timings: Timings,
        clock: DeliveryClock,
    ) -> None:
        self._timings = timings
        self._clock = clock
        self.cursors: dict[int, Position] = {}
        self.numbers: dict[int, int] = {}
        self.counted: dict[str, int] = {}
        self.memory: dict[str, object] = {}
        self.planned_events = 0
        self.waiting_bytes = 0
        self._kept_bytes: dict[str, int] = {}  # in memory, by plan
        self._enforced_s = float("-inf")  # when the limits of dead letters were last enforced
        self._rejected_throttle = LogThrottle(timings, clock)
        self._home = home
        self._thread = thread
        self._wake_up = wake_up
        self._log = structlog.get_logger("deliver").bind(destination=name)
        self.dead = home.dead_letters(dead_limits, self._log, timings, clock)
        self._store: StateStore | None = None
        self._sequence = 0
        self._next = Transaction()
        self._writing = Transaction()  # being written
        self._written: list[Task] = []
        self._pins: dict[str, Plan] = {}  # plans on the disk
        self._write: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._written_s = float("-inf")
        self._changed_s = 0.0
        self._slots: set[int] = set()  # slots that this destination has read
        # The batch that was last read to make a part: its id, events and sources.
        self._whole: tuple[str, tuple[list[bytes], list[str]]] = "", ([], [])
        self._remade: set[str] = set()  # batches that were planned again

    async def open(self) -> list[Task]:
        """Read the state; return the tasks that the last run left, in their order."""
        return await self._thread.run(self._open)

    def _open(self) -> list[Task]:
        self._store = self._home.open_store()
        self.cursors = self._store.cursors()
        self.numbers = self._store.numbers()
        self._slots = set(self.cursors)
        self.counted = self._store.counters()
        self.memory = self._store.memory()
        plans = self._store.plans()
        self._pins = {plan.id: plan for plan in plans}
        self.planned_events = sum(plan.events for plan in plans)
        self._kept_bytes = {plan.id: plan.size_bytes for plan in plans}
        self.waiting_bytes = sum(self._kept_bytes.values())
        self._sequence = max((plan.sequence for plan in plans), default=0) + 1
        self.dead.resume([plan.dead_letters for plan in plans if plan.dead_letters is not None])
        return [Task(plan) for plan in plans]

    async def close(self) -> None:
        for task in (self._write, self._looking):
            if task is not None:
                with contextlib.suppress(Exception):
                    await task
        await self._thread.run(self._close)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self.dead.close()

    # --- collecting changes ------------------------------------------------------------------

    @property
    def fresh_batches(self) -> int:
        """The number of batches with new plans that are not written yet."""
        return len(self._next.roots)

    @property
    def has_room(self) -> bool:
        """Whether another plan can be stored."""
        new = len(self._next.roots | self._writing.roots)
        return self._store is not None and new < self._store.room

    @property
    def has_fresh(self) -> bool:
        """Whether plans or dead letters are being written, or are to be."""
        return bool(self._next.has_plans or self._written or self._write or self._looking)

    @property
    def due_s(self) -> float:
        """When the next write begins; infinity without changes or while a write is running."""
        changes = self._next.changes
        if self._write is not None or not changes:
            return float("inf")
        if self._next.has_plans or len(changes.ended) >= _MAX_ENDS:
            return self._written_s + self._timings.write_s
        return max(
            self._changed_s + self._timings.settled_s, self._written_s + self._timings.write_s
        )

    def plan(self, cut: Cut, selection: Selection) -> None:
        """Plan a batch that was cut, or only move the cursors if it has no events."""
        changes = self._changing()
        changes.after |= cut.after
        changes.numbers |= cut.numbers
        for name, events in cut.counts.items():
            changes.count(name, events)
        for slot in cut.after.keys() - self._slots:
            self._slots.add(slot)
            changes.count("before", cut.first_numbers[slot])
        if cut.events:
            self._add(Task.of_cut(cut, self._sequence, selection, self._home.batch_id(cut)))
            self._sequence += 1

    def settle(self, task: Task, settlement: Settlement) -> None:
        """End a task, and collect what its settlement requires."""
        plan, changes = task.plan, self._changing()
        self._end(plan)
        if settlement.groups:
            self._next.divided.append((task, settlement.groups))
            self._next.roots.add(plan.root)
            self.planned_events += sum(map(len, settlement.groups))
        if settlement.dead:
            self._next.buried.append((task, settlement.dead))
        if settlement.groups or settlement.dead:
            self._next.settled_bytes += plan.size_bytes
            self.waiting_bytes += plan.size_bytes
        if events := self._rejected_throttle.add(len(settlement.dead)):
            first = settlement.dead.first
            self._log.warning(
                "events_rejected",
                events=events,
                reason=first.reason,
                response=first.response[:200].decode("utf-8", "replace"),
            )
        self._next.replayed += settlement.replayed
        self._next.rejected_again |= settlement.rejected_again
        if settlement.memory is not None:
            changes.memory = settlement.memory
        for name, events in settlement.counted.items():
            changes.count(name, events, plan.root)
        if settlement.replayed or plan.dead_letters is None:
            changes.count("batches", 1, plan.root)

    def expire(self, plan: Plan) -> None:
        """Give up a plan; its events count as expired."""
        self._end(plan)
        self.count("expired", plan.events)

    def skip(self, passed: dict[int, int], cutter: Cutter) -> None:
        """Count events that were skipped unread as expired; `passed` is their number by slot."""
        self._changing().after |= {slot: cutter.cursors[slot] for slot in passed}
        self._changing().numbers |= cutter.known_numbers(passed)
        self.count("expired", sum(passed.values()))

    def count(self, name: str, events: int) -> None:
        if events:
            self._changing().count(name, events)

    def _changing(self) -> Changes:
        if not self._next.changes:
            self._changed_s = self._clock.monotonic_s()
        return self._next.changes

    def _add(self, task: Task) -> None:
        self._next.planned.append(task)
        self._next.changes.planned.append(task.plan)
        self._next.roots.add(task.plan.root)
        self.planned_events += task.plan.events
        self._keep(task.plan)

    def _keep(self, plan: Plan) -> None:
        self._kept_bytes[plan.id] = plan.size_bytes
        self.waiting_bytes += plan.size_bytes

    def _end(self, plan: Plan) -> None:
        self._changing().ended.append(plan.id)
        self.planned_events -= plan.events
        self.waiting_bytes -= self._kept_bytes.pop(plan.id, 0)

    def forget(self, plan: Plan) -> None:
        """Note that a plan's events are no longer kept in memory."""
        kept_bytes = self._kept_bytes.get(plan.id, 0)
        self._kept_bytes[plan.id] = min(kept_bytes, _PLAN_BYTES)
        self.waiting_bytes += self._kept_bytes[plan.id] - kept_bytes

    # --- writing -----------------------------------------------------------------------------

    def write_when_due(self, now_s: float, *, at_once: bool = False) -> None:
        """Begin a write in the thread if it is due and no other write is running."""
        if self._write is None and self._next.changes and (at_once or now_s >= self.due_s):
            self._writing, self._next = self._next, Transaction()
            self._write = asyncio.ensure_future(self._write_all(self._writing))
            self._write.add_done_callback(lambda _: self._wake_up())

    async def _write_all(self, writing: Transaction) -> None:
        parts = await self._thread.run(self._commit, writing)
        changes = writing.changes
        self.waiting_bytes -= writing.settled_bytes
        for part in parts:
            self._keep(part.plan)
        self._written_s = self._clock.monotonic_s()
        self._written += writing.planned
        self._written += parts
        self._pins |= {plan.id: plan for plan in changes.planned}
        for identity in changes.ended:
            self._pins.pop(identity, None)
        self.cursors |= changes.after
        self.counted = self.counted | _added(self.counted, changes)
        self._writing = Transaction()

    def _commit(self, writing: Transaction) -> list[Task]:
        """Write a transaction; return the parts of the batches that were divided."""
        assert self._store is not None
        bundles = [each for task, dead in writing.buried for each in dead_letters(task, dead)]
        self.dead.write(bundles, writing.replayed, writing.rejected_again)
        parts = [each for task, groups in writing.divided for each in task.divided(groups)]
        writing.changes.planned += [part.plan for part in parts]
        self._store.commit(writing.changes)
        return parts

    def check(self) -> None:
        """Raise the exception of a failed write or search for dead letters."""
        if self._write is not None and self._write.done():
            task, self._write = self._write, None
            task.result()
        if self._looking is not None and self._looking.done():
            task, self._looking = self._looking, None
            task.result()

    def take_planned(self) -> list[Task]:
        """Take the tasks whose plans were written since the last call; they may be sent."""
        written, self._written = self._written, []
        return written

    async def flush(self) -> None:
        """Write all changes, and wait for that."""
        while self._write is not None or self._next.changes:
            self.write_when_due(0.0, at_once=True)
            if self._write is not None:
                await asyncio.wait({self._write})
            self.check()

    # --- dead letters, and plans of the last run ---------------------------------------------

    def tend_dead_letters(self, limits: BatchLimits | None, now_s: float) -> None:
        """Enforce the limits of dead letters, and plan one batch for replay.

        Without `limits`, none is planned.
        """
        if self._looking is None and self.dead.has_any:
            is_due = now_s - self._enforced_s >= self._timings.dead_age_s
            self._enforced_s = now_s if is_due else self._enforced_s
            self._looking = asyncio.ensure_future(self._tend_dead_letters(limits, is_due))
            self._looking.add_done_callback(lambda _: self._wake_up())

    async def _tend_dead_letters(self, limits: BatchLimits | None, is_due: bool) -> None:
        letters = await self._thread.run(self.dead.tend, limits, is_due=is_due)
        if letters:
            self._log.info("dead_letters_replayed", events=len(letters))
            self._changing()
            self._add(Task.of_dead_letters(letters, self._sequence))
            self._sequence += 1

    async def read_back(self, plan: Plan) -> Batch | None:
        """Return the batch of a plan from an earlier run, read from the spool or dead letters.

        Return None if its bytes have changed; the events that are left are then planned again. Also
        return None for a replay whose outcome was recorded before a crash.
        """
        batch = await self._thread.run(self._read_back, plan)
        if batch is not None:
            return batch
        remade = None
        if plan.dead_letters is None and plan.root not in self._remade:
            self._remade.add(plan.root)  # the whole batch, with its other parts
            remade = await self._thread.run(Task.of_rest, plan, self._home.log)
        self._end(plan)
        left = 0
        if remade is not None:
            left = remade.plan.events
            self._add(remade)
        if plan.dead_letters is not None:
            # The replay had ended. Dead letters are only removed after they were delivered.
            left = await self._thread.run(self.dead.existing, plan.dead_letters)
            self._changing().count("delivered", plan.events - left)
            self._changing().count("dead", left - plan.events)
        else:
            self._log.error("batch_changed", batch=plan.id, events=plan.events, left=left)
            self._changing().count("missing", plan.events - left)
        return None

    def _read_back(self, plan: Plan) -> Batch | None:
        if plan.dead_letters is None:
            if plan.numbers is None:
                self._whole = "", ([], [])
                return plan.read_back(self._home.log)
            if self._whole[0] != plan.root:
                self._whole = plan.root, plan.whole_events(self._home.log)
            return plan.part_of(*self._whole[1])
        letters = self.dead.read_replayed(plan.dead_letters)
        if letters is None:
            return None
        found = events_of_dead_letters(letters)
        return plan.batch(found.body, found.runs)

    # --- figures -----------------------------------------------------------------------------

    def totals(self) -> dict[str, int]:
        """Return `counted` with the changes that are not written yet."""
        totals = dict(self.counted)
        for writing in (self._writing, self._next):
            totals |= _added(totals, writing.changes)
        return totals

    def low_water(self) -> dict[int, Position]:
        """Return the first position that is still needed, by slot."""
        low = dict(self.cursors)
        for plan in self._pins.values():
            for each in plan.ranges:
                low[each.slot] = min(each.start, low.get(each.slot, each.start))
        return low


def _added(totals: dict[str, int], changes: Changes) -> dict[str, int]:
    return {name: totals.get(name, 0) + more for name, more in changes.counted.items()}
