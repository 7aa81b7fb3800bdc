"""Batches that wait to be sent, and which one is next."""

from __future__ import annotations

import heapq
import random
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from pixelfast.deliver.batches import Batch
from pixelfast.deliver.outcomes import Retry
from pixelfast.deliver.plans import Plan

__all__ = ["Queue", "Task"]

_PATIENCE = 2  # failures of a batch of its own before it is suspected
_PATIENCE_IF_BUSY = 10
_OF_LATE_S = 10.0
_MOST_CULPRITS = 256
_MOST_AT_ALL = 2560
_SURELY = 5  # failures of a culprit before it may give way to others
_PAUSE_SHARE = 9.0  # culprits take a tenth of the time
_LONGEST_S = 60.0
_BUSY = frozenset({408, 425, 429, 503})


@dataclass(slots=True, eq=False)
class Task:
    """A plan on its way; its batch once it is in memory.

    Attributes:
        tried_s: when it was sent last; 0 before that.
        failures: how often its destination failed at it, in this run.
        suspected_s: when it did first, or when the batch did that it is a part of.
        is_part: of a batch that its destination failed at while it took others.
        is_culprit: its destination fails at this one event.
        outcome: how it failed last.
        refused_s: when it was rejected before it was known whether it is to blame; 0: never.
    """

    plan: Plan
    batch: Batch | None
    not_before_s: float = 0.0
    tried_s: float = 0.0
    failures: int = 0
    suspected_s: float = 0.0
    is_part: bool = False
    is_culprit: bool = False
    outcome: Retry | None = None
    refused_s: float = 0.0

    def is_at_fault(
        self, outcome: Retry, accepted_s: float, now_s: float, *, has_culprits: bool
    ) -> bool:
        """Count a failure; whether the events are to blame: others were accepted meanwhile.

        A destination that crashes on an event, or never answers, is down only for that batch. Where
        there are such events already (`has_culprits`), one failure is enough.
        """
        self.failures += 1
        self.outcome = outcome
        self.suspected_s = self.suspected_s or now_s
        patience = 1 if self.is_part else _PATIENCE
        if self.is_busy:
            patience = _PATIENCE_IF_BUSY
        elif has_culprits and accepted_s > now_s - _OF_LATE_S:
            return True
        return self.failures >= patience and accepted_s > self.suspected_s

    @property
    def is_busy(self) -> bool:
        """Whether its destination said last that it is busy, which may be true."""
        return self.outcome is not None and bool(
            self.outcome.status in _BUSY or self.outcome.after_s
        )


class Queue:
    """The tasks of one destination that are not under way.

    In the order of their events; those that wait for a time come up when it has come. A culprit
    gets its turn where nothing else has one, and seldom: it must not take the time of the others.
    """

    def __init__(self) -> None:
        self._ready: list[Task] = []  # in order
        self._later: list[tuple[float, int, Task]] = []  # a heap, by time
        self._culprits: list[tuple[float, int, Task]] = []
        self._culprits_at_s = 0.0
        self._under_way_s: float | None = None  # since when a culprit is
        self._ties = count()
        self._batches: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._ready) + len(self._later) + len(self._culprits)

    def __iter__(self) -> Iterator[Task]:
        yield from self._ready
        for heap in (self._later, self._culprits):
            yield from (task for _, _, task in heap)

    @property
    def has_culprits(self) -> bool:
        return bool(self._culprits) or self._under_way_s is not None

    @property
    def plans(self) -> int:
        """How many wait, but for culprits."""
        return len(self._ready) + len(self._later)

    @property
    def batches(self) -> int:
        """How many batches these are of: the parts of one count once."""
        return len(self._batches)

    def add(self, task: Task) -> None:
        if task.is_culprit:
            heapq.heappush(self._culprits, (task.not_before_s, next(self._ties), task))
            return
        self._batches[task.plan.root] += 1
        if task.not_before_s:
            heapq.heappush(self._later, (task.not_before_s, next(self._ties), task))
        else:
            insort(self._ready, task, key=_order)

    def remove(self, task: Task) -> None:
        if task in self._ready:
            self._ready.remove(task)
        for heap in (self._later, self._culprits):
            kept = [each for each in heap if each[2] is not task]
            if len(kept) < len(heap):
                heap[:] = kept
                heapq.heapify(heap)
        if not task.is_culprit:
            self._leave(task)

    def next(self, now_s: float, *, in_order: bool, is_probe: bool) -> Task | None:
        """Take the task that is to be sent now.

        `in_order`: none overtakes another, but for culprits. `is_probe`: the destination is down
        or held, so each gets its turn: one of them may be what it fails at.
        """
        while self._later and self._later[0][0] <= now_s:
            task = heapq.heappop(self._later)[2]
            insort(self._ready, task, key=_order)
        if not self._ready:
            return None if in_order and self._later else self._next_culprit(now_s)
        if in_order and any(_order(task) < _order(self._ready[0]) for _, _, task in self._later):
            return None
        place = 0
        if is_probe and not in_order:
            place = min(range(len(self._ready)), key=lambda n: self._ready[n].tried_s)
        task = self._ready.pop(place)
        task.tried_s = now_s
        self._leave(task)
        return task

    def next_s(self) -> float:
        """When something comes up that is not up yet; infinity where nothing does."""
        times = [heap[0][0] for heap in (self._later,) if heap]
        if self._culprits and self._under_way_s is None:
            times.append(max(self._culprits[0][0], self._culprits_at_s))
        return min(times, default=float("inf"))

    @property
    def is_ready(self) -> bool:
        return bool(self._ready)

    def some_events(self, most: int) -> list[bytes]:
        """Events of any batches that wait, each with its line feed; none is taken."""
        batches = [task.batch for task in self._ready if task.batch is not None]
        chosen = random.sample(batches, min(most, len(batches)))
        each = most // max(1, len(chosen))
        events: list[bytes] = []
        for batch in chosen:
            lines = batch.lines()
            events += [line + b"\n" for line in random.sample(lines, min(each, len(lines)))]
        return events

    def clear(self) -> None:
        self._ready.clear()
        self._later.clear()
        self._culprits.clear()
        self._batches.clear()

    # --- culprits ----------------------------------------------------------------------------

    def set_apart(self, task: Task, now_s: float) -> None:
        """Keep one event that its destination fails at: it is tried seldom until it is too old."""
        task.is_culprit = True
        bound_s = min(_LONGEST_S, 0.5 * 2 ** min(task.failures, 20))
        task.not_before_s = now_s + bound_s * (0.5 + random.random() / 2)  # noqa: S311
        self.add(task)

    def surplus(self) -> Task | None:
        """Take the culprit that failed most often, if there are too many to keep."""
        if len(self._culprits) <= _MOST_CULPRITS:
            return None
        sure = [task for _, _, task in self._culprits if not task.is_busy]
        task = max(sure, key=lambda task: task.failures, default=None)
        if task is None or (task.failures < _SURELY and len(sure) <= _MOST_AT_ALL):
            return None
        self.remove(task)
        return task

    def release(self) -> None:
        """Send all culprits with the others again: one was accepted, so their cause is gone."""
        culprits, self._culprits = self._culprits, []
        for _, _, task in culprits:
            task.is_culprit, task.not_before_s = False, 0.0
            self.add(task)

    def _next_culprit(self, now_s: float) -> Task | None:
        if self._under_way_s is not None or now_s < self._culprits_at_s:
            return None
        if not self._culprits or self._culprits[0][0] > now_s:
            return None
        task = heapq.heappop(self._culprits)[2]
        task.tried_s = self._under_way_s = now_s
        return task

    def answered(self, task: Task, now_s: float) -> None:
        """A task that was taken has got its answer."""
        if task.is_culprit and self._under_way_s is not None:
            self._culprits_at_s = now_s + _PAUSE_SHARE * (now_s - self._under_way_s)
            self._under_way_s = None

    def _leave(self, task: Task) -> None:
        self._batches[task.plan.root] -= 1
        if not self._batches[task.plan.root]:
            del self._batches[task.plan.root]


def _order(task: Task) -> tuple[int, int]:
    return task.plan.order
