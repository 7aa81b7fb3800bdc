"""The delivery of one destination: cut batches, plan them, send them, settle them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import structlog

from pixelfast.deliver.batch_size import BatchSize
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.dead_keeper import LogThrottle
from pixelfast.deliver.doubts import Doubts
from pixelfast.deliver.home import Home
from pixelfast.deliver.intake import Intake
from pixelfast.deliver.memory import MemoryShare
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.progress import (
    COUNTED,
    accounted_events,
    with_pending,
)
from pixelfast.deliver.queue import MAX_CULPRITS, Queue
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.settler import Settler
from pixelfast.deliver.state_writer import StateWriter
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.threads import OwnThread
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import Position

__all__ = ["Runner"]

_WAITING_BATCHES = 64  # cut ahead, so that one transaction plans several
_NEVER_LESS = frozenset(COUNTED) - {"dead"}  # dead letters may be delivered later
_WAITING_PLANS = 4096  # a batch with bad events is divided into many plans


class Runner:
    """Deliver all events of one destination.

    Up to `sender.concurrency` batches are under way at once. If that is 1, batches are sent in the
    order of their events.

    Attributes:
        is_open: whether the state was ever read and the sender opened, so that cursors are known.
        has_failed: whether the last run failed, and the sender was not opened again since.
    """

    def __init__(
        self,
        name: str,
        outlet: Outlet,
        home: Home,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        *,
        retry_for_s: float = float("inf"),
        dead_limits: DeadLetterLimits = DeadLetterLimits(),  # noqa: B008 - immutable
        share_bytes: int = 192 * 2**20,
        turn: asyncio.Lock | None = None,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        max_culprits: Sequence[tuple[int, int]] = MAX_CULPRITS,
    ) -> None:
        """Deliver the events that `selection` accepts to the sender of `outlet`.

        Args:
            retry_for_s: events older than this become dead letters when an attempt fails.
            share_bytes: the maximum memory of its events.
            turn: held while events are read, so that only one of the destinations that share it
                blocks the event loop at a time.
            max_culprits: numbers of waiting culprits, and the failures after which another one
                becomes a dead letter.
        """
        self.name = name
        self.sender = outlet.sender
        self.health = outlet.health
        self._outlet = outlet
        self._memory = MemoryShare(share_bytes)
        self._turn = turn or asyncio.Lock()
        self.is_open = False
        self.has_failed = False
        self._told: dict[str, float] = {}  # the last reported totals
        self._on_disk: dict[str, float] = {}  # the figures that were last read
        self._read_s = float("-inf")
        self._timings = timings
        self._clock = clock
        self.state: StateWriter | None = None
        self._home = home
        self._selection = selection
        self._retry_for_s = retry_for_s
        self._dead_limits = dead_limits
        self._log = structlog.get_logger("deliver").bind(destination=name)
        self._size = BatchSize(self._memory.fit(self.sender.limits).max_bytes, self._log)
        self._stopping = asyncio.Event()
        self._give_up_s = 0.0
        self._has_given_up = False
        self._wake: asyncio.Future[None] | None = None
        self.queue = Queue(timings, max_culprits)  # tasks whose plans are on the disk
        self._doubts = Doubts(
            outlet, home.log, selection, self.queue, self._wake_up, timings, clock
        )
        self._under_way: dict[asyncio.Task[Outcome], tuple[Task, float]] = {}
        self._intake: Intake | None = None
        self._given_up: dict[int, Position] = {}  # by slot: events before it have expired
        self._replayed_s = 0.0

    # --- interface to the engine -------------------------------------------------------------

    def stop(self) -> None:
        """Deliver the stored events for at most `stop_s`, then end; end at the first failure."""
        self._give_up_s = self._clock.monotonic_s() + self._timings.stop_s
        self._stopping.set()
        self._wake_up()

    def give_way(self) -> None:
        """End as soon as no request is under way; another runner delivers the rest."""
        self._has_given_up = True
        self.stop()

    @property
    def cursors(self) -> dict[int, Position]:
        """The first position of each slot that is still needed: planned, or not read yet."""
        return self.state.low_water() if self.state else {}

    @property
    def counted(self) -> dict[str, int]:
        """The totals of this destination, as stored on the disk."""
        return self.state.counted if self.state else {}

    @property
    def last_error(self) -> str:
        return self.health.breaker.reason

    def fail(self, reason: str) -> None:
        """Record that a run has failed."""
        self.has_failed = True
        self.health.breaker.reason = reason

    @property
    def lag_s(self) -> float:
        """The age of the oldest event that was read but not delivered, in seconds; 0 if none."""
        times = [self._intake.cutter.oldest_ms] if self._intake else []
        times += [task.plan.oldest_ms for task in self.queue]
        times += self._doubts.oldest_times_ms
        times += [task.plan.oldest_ms for task, _ in self._under_way.values()]
        oldest_ms = min((each for each in times if each), default=0)
        return self._clock.age_s(oldest_ms) if oldest_ms else 0.0

    def stats(self, end_numbers: Mapping[int, int] | None) -> dict[str, object]:
        """Return all figures; `end_numbers` is the number of the next event by slot, if known."""
        figures: dict[str, float] = {}
        if self.state and self._intake:
            figures = self._figures(self.state, self._intake.cutter, end_numbers)
        elif self.has_failed:
            figures = self._figures_on_disk(end_numbers)
        for name in _NEVER_LESS & figures.keys():
            # Figures of a failed run may have been read from the disk before the last run.
            figures[name] = self._told[name] = max(figures[name], self._told.get(name, 0))
        state = self.health.breaker.state
        if self.has_failed or not self.is_open:
            state = "failing" if self.has_failed else "starting"
        return {
            **figures,
            **self.sender.figures(),
            "state": state,
            "under_way": len(self._under_way),
            "concurrency": self.health.concurrency.limit,
            "last_error": self.last_error,
            "dead_letters": {
                source: each._asdict()
                for source, each in (self.state.dead.by_source if self.state else {}).items()
            },
        }

    def _figures(
        self, state: StateWriter, cutter: Cutter, end_numbers: Mapping[int, int] | None
    ) -> dict[str, float]:
        """Return the totals on the disk, which a crash does not take back, and what they lack.

        Prometheus would mistake a smaller total for one that was counted again from 0.
        """
        totals = Counter(state.totals())
        totals.update(cutter.open_counts)
        written = {**state.counted, "before": totals["before"]}  # the end numbers include these
        figures: dict[str, float] = {"lag_s": round(self.lag_s, 3)}
        if end_numbers is None:
            return figures | with_pending(written, None)
        ends = cutter.ends_from(end_numbers)  # reading may be ahead of them
        figures |= with_pending(written, ends)
        unwritten = accounted_events(totals) - accounted_events(written)
        unread = cutter.unread_events(ends)
        figures["pending"] = state.planned_events + cutter.open_events + unread + unwritten
        return figures

    def _figures_on_disk(self, end_numbers: Mapping[int, int] | None) -> dict[str, float]:
        """Return the figures from the disk, read at most every 5 s because that blocks."""
        now_s = self._clock.monotonic_s()
        if now_s - self._read_s >= self._timings.figures_s:
            self._read_s = now_s
            self._on_disk = self._home.stored_figures(end_numbers, self._clock)
        return dict(self._on_disk)

    def expire(self, until: Mapping[int, Position]) -> None:
        """Give up all events before these positions, by slot.

        Batches under way are given up if they fail.
        """
        state, intake = self.state, self._intake
        if state is None or intake is None or not self.is_open:
            return
        for slot, position in until.items():
            self._given_up[slot] = max(position, self._given_up.get(slot, position))
        self._doubts.take_back()
        cutter = intake.cutter
        if cutter.has_moved():
            state.plan(intake.close_batch(), self._selection)
        passed = {slot: cutter.skip_to(slot, position) for slot, position in until.items()}
        state.skip(passed, cutter)
        self._expire_queued(state, sum(passed.values()))

    def _expire_queued(self, state: StateWriter, skipped: int = 0) -> None:
        """Give up the queued batches that have expired; log them and `skipped` events."""
        tasks = self.queue.take_where(lambda task: task.plan.begins_before(self._given_up))
        for task in tasks:
            state.expire(task.plan)
        if expired := skipped + sum(task.plan.events for task in tasks):
            segments = {slot: f"{position.segment:x}" for slot, position in self._given_up.items()}
            self._log.warning("events_expired", events=expired, before_segment=segments)
            self._wake_up()

    def follow(self, selection: Selection, share_bytes: int) -> None:
        """Apply a new selection and memory share from the next batch on."""
        if selection != self._selection:
            if self._intake is not None:
                if self.state is not None and self._intake.cutter.has_moved():
                    self.state.plan(self._intake.close_batch(), self._selection)
                    self._wake_up()
                self._intake.cutter.select(selection)
            self._selection = self._doubts.selection = selection
        self._memory.resize(share_bytes)
        self._size.set_ceiling(self._memory.fit(self.sender.limits).max_bytes)

    async def pause(self, seconds: float) -> bool:
        """Wait; return True if a stop ended the wait early."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # --- the run -----------------------------------------------------------------------------

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if not await self._claim():
                return
            stack.callback(self._home.release)
            thread = OwnThread(f"deliver-{self.name}")
            stack.push_async_callback(thread.close)
            state = StateWriter(
                self.name,
                self._home,
                thread,
                self._wake_up,
                self._dead_limits,
                self._timings,
                self._clock,
            )
            stack.push_async_callback(state.close)
            for task in await state.open():
                self.queue.add(task)
            cutter = Cutter(
                self._home.log,
                dict(state.cursors),
                self._memory.fit(self.sender.limits),
                self._selection,
                state.numbers,
                chunk_bytes=self._memory.buffer_bytes,
                timings=self._timings,
                clock=self._clock,
            )
            self._intake = Intake(cutter, self._timings, self._clock)
            stack.callback(self._leave_intake)
            self.state = state
            await self._outlet.open(state.memory)
            stack.push_async_callback(self._outlet.close)
            self.is_open, self.has_failed = True, False
            self._home.note_working()
            stack.push_async_callback(self._cancel)
            await self._work(self._intake, state)

    async def _claim(self) -> bool:
        """Claim the destination for this process; another process may still be stopping."""
        told = LogThrottle(self._timings, self._clock)

        def on_claimed(error: Exception) -> None:
            if told.add(1):
                self._log.warning("destination_locked", error=str(error))

        return await self._home.claim(partial(self.pause, self._timings.lock_retry_s), on_claimed)

    def _leave_intake(self) -> None:
        if self._intake is not None:
            self._intake.cutter.close()
            self._intake = None

    async def _cancel(self) -> None:
        for each in self._under_way:
            each.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        for _ in self._under_way:
            self._outlet.end()
        self._under_way.clear()
        self._outlet.leave(self._wake_up)
        self._memory.sending_bytes = 0
        await self._doubts.cancel()
        self.queue.clear()

    async def _work(self, intake: Intake, state: StateWriter) -> None:
        loop = asyncio.get_running_loop()
        settler = Settler(
            self.health,
            self.queue,
            self._doubts,
            state,
            self._retry_for_s,
            self.sender.blames_events,
            self._dead_limits,
            self._timings,
            self._clock,
        )
        while True:
            now_s = self._clock.monotonic_s()
            is_stopping = self._stopping.is_set()  # a stop during this turn gets another turn
            self._wake = loop.create_future()
            for task in (planned := state.take_planned()):
                self.queue.add(task)
            if planned and self._given_up:
                self._expire_queued(state)  # they may have expired while they were written
            if self._is_time_to_cut(intake, state, now_s, is_stopping=is_stopping):
                self._limit_batches(intake.cutter)
                async with self._turn:
                    intake.cut(
                        lambda cut: state.plan(cut, self._selection),
                        lambda: self._may_cut(state),
                        is_stopping=is_stopping,
                    )
                    await asyncio.sleep(0)  # other tasks continue before the next turn
            self._tend_dead_letters(intake.cutter.limits, state, now_s)
            state.write_when_due(now_s, at_once=is_stopping)
            self._send(now_s)
            if is_stopping and self._is_finished(intake.cutter, state, now_s):
                await state.flush()
                return
            await self._wait(self._wake, intake, state)
            state.check()
            for each in [each for each in self._under_way if each.done()]:
                self._settle(settler, each)
            is_idle = not (self.queue.plans or self._under_way or state.has_fresh)
            settler.settle_doubts(is_idle=is_idle)

    def _is_finished(self, cutter: Cutter, state: StateWriter, now_s: float) -> bool:
        if now_s > self._give_up_s:
            return True  # batches under way are planned, and retried after the next start
        if self._under_way:
            return False
        if self._has_given_up:
            return True
        if state.has_fresh:
            return False
        if not self._allows(now_s):
            return True  # events that are not planned are safe in the spool
        is_read = not cutter.has_moved() and not cutter.has_more
        return is_read and not self.queue.is_ready

    async def _wait(self, wake: asyncio.Future[None], intake: Intake, state: StateWriter) -> None:
        now_s = self._clock.monotonic_s()
        times = [now_s + self._timings.check_s, state.due_s]
        if self.queue.next_s() > now_s:
            times.append(self.queue.next_s())
        if self._may_cut(state):
            times.append(intake.next_look_s)
        handle = asyncio.get_running_loop().call_later(max(0.0, min(times) - now_s), self._wake_up)
        try:
            await wake
        finally:
            handle.cancel()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # --- from the spool to plans -------------------------------------------------------------

    def _is_time_to_cut(
        self, intake: Intake, state: StateWriter, now_s: float, *, is_stopping: bool
    ) -> bool:
        if self._may_cut(state):
            return is_stopping or now_s >= intake.next_look_s
        is_too_much = intake.cutter.buffered_bytes > self._memory.buffer_bytes
        if is_too_much or not self.health.breaker.is_healthy:
            intake.cutter.release()
        return False

    def _may_cut(self, state: StateWriter) -> bool:
        """Whether to cut another batch; not ahead while the destination accepts nothing."""
        waiting = self.queue.batches + len(self._under_way) + state.fresh_batches
        if not state.has_room:
            return False
        if not self.health.breaker.is_healthy or self._has_given_up:
            return waiting == 0 and not self._has_given_up
        is_full = not self._memory.allows_reading(state.waiting_bytes)
        if is_full or self.queue.plans >= _WAITING_PLANS:
            return waiting == 0 and not self._doubts
        ahead = _WAITING_BATCHES if self.sender.concurrency > 1 else 4
        return waiting < self.health.concurrency.limit + ahead

    def _tend_dead_letters(self, limits: BatchLimits, state: StateWriter, now_s: float) -> None:
        if now_s - self._replayed_s >= self._timings.replay_s:
            self._replayed_s = now_s
            may_replay = self.health.breaker.is_healthy and self._may_cut(state)
            state.tend_dead_letters(limits if may_replay else None, now_s)

    def _limit_batches(self, cutter: Cutter) -> None:
        if cutter.limits.max_bytes != self._size.max_bytes:
            limits = cutter.limits
            cutter.limits = BatchLimits(limits.max_events, self._size.max_bytes, limits.max_age_s)

    # --- sending -----------------------------------------------------------------------------

    def _allows(self, now_s: float) -> bool:
        return not self._has_given_up and self._outlet.allows(now_s)

    def _send(self, now_s: float) -> None:
        while self._allows(now_s):
            if not self._outlet.may_begin(self._wake_up):
                return
            if not self._send_next(now_s):
                break
        self._outlet.leave(self._wake_up)

    def _send_next(self, now_s: float) -> bool:
        """Begin a request; return False if there is nothing to send now."""
        if not self._memory.allows_sending():
            return False
        is_probe = not self.health.breaker.is_healthy
        in_order = self.sender.concurrency == 1
        cursors = self._intake.cutter.cursors if is_probe and self._intake else {}
        if is_probe and self._doubts.send_newest(now_s, cursors, in_order=in_order):
            return False
        if in_order and self._under_way:
            return False
        task = self.queue.next(now_s, in_order=in_order, is_probe=is_probe)
        if task is None:
            return False
        self._memory.sending_bytes += task.plan.size_bytes
        under_way = asyncio.ensure_future(self._send_one(task))
        under_way.add_done_callback(lambda _: self._wake_up())
        self._under_way[under_way] = (task, now_s)
        self._outlet.begin()
        return True

    async def _send_one(self, task: Task) -> Outcome:
        assert self.state is not None
        if task.batch is None:
            task.batch = await self.state.read_back(task.plan)
            if task.batch is None:
                return Accepted()  # its events have gone, which the state writer has counted
        task.plan.attempts += 1
        task.batch.attempt = task.plan.attempts
        return await self.sender.deliver(task.batch)

    # --- settling ----------------------------------------------------------------------------

    def _settle(self, settler: Settler, done: asyncio.Task[Outcome]) -> None:
        task, began_s = self._under_way.pop(done)
        under_way = self._outlet.requests
        self._outlet.end()
        self._memory.sending_bytes -= task.plan.size_bytes
        outcome = done.result()
        self.queue.responded(task, self._clock.monotonic_s())
        if task.batch is None:
            return
        if self._stopping.is_set() and not isinstance(outcome, Accepted):
            self._has_given_up = True
        if isinstance(outcome, Rejected) and outcome.is_too_large:
            self._size.rejected(task.plan.size_bytes, events=task.plan.events)
        elif isinstance(outcome, Accepted):
            self._size.accepted()
        settler.settle(task, outcome, began_s, under_way)
        if self._given_up and self.state and not isinstance(outcome, Accepted):
            self._expire_queued(self.state)  # it may have expired while it was under way
