"""Tasks that wait to be sent, and which one is next."""

from __future__ import annotations

import heapq
import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from pixelfast.deliver.batches import Batch, some_events
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import Timings

__all__ = ["MAX_CULPRITS", "Queue"]

# If this many culprits wait, one with this many failures becomes a dead letter. The events of
# waiting culprits are not in memory.
MAX_CULPRITS = ((256, 5), (2560, 1))
_MAX_BUSY_CULPRITS = 25_600
_PAUSE_SHARE = 9.0  # culprits use a tenth of the time


class Queue:
    """The tasks of one destination that are not under way.

    Tasks are taken in the order of their events; a task with a delay becomes ready after the delay.
    A culprit, one event that makes its destination fail, is taken only if nothing else is ready, so
    that culprits use at most a tenth of the time.
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
        self._under_way_s: float | None = None  # since when a culprit is under way
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
        """The number of waiting tasks, without culprits."""
        return len(self._ready) + len(self._later)

    @property
    def batches(self) -> int:
        """The number of batches that these tasks belong to; the parts of a batch count as one."""
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
        """Take all tasks for which `is_wanted` returns True."""
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
        """Take the task that is to be sent now, or return None.

        If `in_order`, no task except a culprit overtakes another. If `is_probe`, because the
        destination is down or held, the tasks take turns: one of them may be the cause.
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
        """Return when the next delayed task becomes ready; infinity without one."""
        times = [self._later[0][0]] if self._later else []
        if self._culprits and self._under_way_s is None:
            times.append(max(self._culprits[0][0], self._culprits_at_s))
        return min(times, default=float("inf"))

    @property
    def is_ready(self) -> bool:
        return bool(self._ready)

    def some_events(self, max_events: int) -> Batch:
        """Return random events of waiting batches; no task is taken."""
        batches = [task.batch for task in self._ready if task.batch is not None]
        chosen = random.sample(batches, min(max_events, len(batches)))
        each = max_events // max(1, len(chosen))
        lines: list[bytes] = []
        sources: list[str] = []
        for batch in chosen:
            picked = random.sample(range(batch.events), min(each, batch.events))
            own_lines, own_sources = batch.lines(), batch.sources()
            lines += [own_lines[place] for place in picked]
            sources += [own_sources[place] for place in picked]
        return some_events(lines, sources, range(len(lines)))

    def clear(self) -> None:
        self._ready.clear()
        self._later.clear()
        self._culprits.clear()
        self._batches.clear()
        self._culprits_at_s, self._under_way_s = 0.0, None

    # --- culprits ----------------------------------------------------------------------------

    def set_apart(self, task: Task, now_s: float) -> None:
        """Keep a culprit, which is retried rarely until it is too old.

        Its event is not kept in memory, but read from the spool again.
        """
        task.is_culprit = True
        task.batch = None
        pause_s = self._timings.culprit_pause_s * 2 ** min(task.failures, 20)
        max_s = min(self._timings.max_culprit_pause_s, pause_s)
        task.not_before_s = now_s + max_s * (0.5 + random.random() / 2)  # noqa: S311
        self.add(task)

    def is_surplus(self, task: Task) -> bool:
        """Whether a culprit that failed again becomes a dead letter because too many wait."""
        waiting = len(self._culprits)
        if task.is_busy:
            return waiting >= _MAX_BUSY_CULPRITS
        return any(
            waiting >= limit and task.failures >= often for limit, often in self._most_culprits
        )

    def release(self) -> None:
        """Make all culprits normal tasks: one of them was accepted, so the cause may be gone."""
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
        """Note that the request of a taken task has ended."""
        if task.is_culprit and self._under_way_s is not None:
            self._culprits_at_s = now_s + _PAUSE_SHARE * (now_s - self._under_way_s)
            self._under_way_s = None

    def _leave(self, task: Task) -> None:
        self._batches[task.plan.root] -= 1
        if not self._batches[task.plan.root]:
            del self._batches[task.plan.root]


def _order(task: Task) -> tuple[int, int]:
    return task.plan.order
