"""Batches that wait to be sent, and which one is next."""

from __future__ import annotations

import heapq
import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import Timings

__all__ = ["MAX_CULPRITS", "Queue"]

# How many culprits may wait before those die that failed so often: none of them is in memory.
MAX_CULPRITS = ((256, 5), (2560, 1))
_MAX_BUSY_CULPRITS = 25_600
_PAUSE_SHARE = 9.0  # culprits take a tenth of the time


class Queue:
    """The tasks of one destination that are not under way.

    They are taken in the order of their events; a task with a delay becomes ready when the delay is
    over. A culprit is taken only if nothing else is ready, and rarely: it must not use up the time
    of the others.
    """

    def __init__(
        self, timings: Timings, max_culprits: Sequence[tuple[int, int]] = MAX_CULPRITS
    ) -> None:
        self._timings = timings
        self._most_culprits = max_culprits
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

    def take_where(self, is_wanted: Callable[[Task], bool]) -> list[Task]:
        """Take all tasks of which this holds."""
        taken = [task for task in self if is_wanted(task)]
        gone = set(map(id, taken))
        self._ready = [task for task in self._ready if id(task) not in gone]
        for heap in (self._later, self._culprits):
            heap[:] = [each for each in heap if id(each[2]) not in gone]
            heapq.heapify(heap)
        for task in taken:
            if not task.is_culprit:
                self._leave(task)
        return taken

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
            place = min(range(len(self._ready)), key=lambda n: self._ready[n].sent_s)
        task = self._ready.pop(place)
        task.sent_s = now_s
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
        self._culprits_at_s, self._under_way_s = 0.0, None

    # --- culprits ----------------------------------------------------------------------------

    def set_apart(self, task: Task, now_s: float) -> None:
        """Keep one event that its destination fails at; it is tried rarely, until it is too old.

        Its batch is not kept in memory, but read again from the spool.
        """
        task.is_culprit = True
        task.batch = None
        pause_s = self._timings.culprit_pause_s * 2 ** min(task.failures, 20)
        bound_s = min(self._timings.max_culprit_pause_s, pause_s)
        task.not_before_s = now_s + bound_s * (0.5 + random.random() / 2)  # noqa: S311
        self.add(task)

    def is_surplus(self, task: Task) -> bool:
        """Whether a culprit that has failed again is to die, since too many wait."""
        waiting = len(self._culprits)
        if task.is_busy:
            return waiting >= _MAX_BUSY_CULPRITS
        return any(
            waiting >= most and task.failures >= often for most, often in self._most_culprits
        )

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
        task.sent_s = self._under_way_s = now_s
        return task

    def responded(self, task: Task, now_s: float) -> None:
        """Note that a task that was taken has got its response."""
        if task.is_culprit and self._under_way_s is not None:
            self._culprits_at_s = now_s + _PAUSE_SHARE * (now_s - self._under_way_s)
            self._under_way_s = None

    def _leave(self, task: Task) -> None:
        self._batches[task.plan.root] -= 1
        if not self._batches[task.plan.root]:
            del self._batches[task.plan.root]


def _order(task: Task) -> tuple[int, int]:
    return task.plan.order
