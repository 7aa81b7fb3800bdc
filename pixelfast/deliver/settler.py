"""Carrying out settlements: plans end, wait or are divided, and destinations are held."""

from __future__ import annotations

from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.doubts import Doubts
from pixelfast.deliver.health import Health, Hold
from pixelfast.deliver.outcomes import Held, Outcome, Partial, Retry, accepts
from pixelfast.deliver.queue import Queue
from pixelfast.deliver.settlement import Settlement, Situation, settle
from pixelfast.deliver.state_writer import StateWriter
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["Settler"]


class Settler:
    """Settle the tasks of one destination.

    Events older than `retry_for_s` become dead letters when an attempt fails. With `blames_events`,
    events that fail while others are accepted are set apart.
    """

    def __init__(
        self,
        health: Health,
        queue: Queue,
        doubts: Doubts,
        state: StateWriter,
        retry_for_s: float,
        blames_events: bool,
        dead_limits: DeadLetterLimits,
        timings: Timings,
        clock: DeliveryClock,
    ) -> None:
        self._recent_s = timings.recent_s
        self._clock = clock
        self._health = health
        self._queue = queue
        self._doubts = doubts
        self._state = state
        self._retry_for_s = retry_for_s
        self._blames_events = blames_events
        self._dead_limits = dead_limits

    def settle(self, task: Task, outcome: Outcome, began_s: float, under_way: int) -> None:
        """Settle a task by the outcome of a request that `began_s`, one of `under_way` requests."""
        now_s = self._clock.monotonic_s()
        accepted_s = self._doubts.rejections.accepted_s
        failure = _failure(outcome, task.plan.events) if self._blames_events else None
        is_selective = self._queue.has_culprits or self._doubts.is_selective(now_s)
        is_at_fault = failure is not None and task.is_at_fault(
            failure, accepted_s, now_s, recent_s=self._recent_s if is_selective else 0.0
        )
        # A replayed dead letter that is at fault stays a dead letter.
        is_too_old = is_at_fault and task.plan.dead_letters is not None
        task.not_before_s = 0.0
        if is_at_fault:
            assert failure is not None
            outcome = failure
            self._health.failures += 1  # counted, but not held against the destination
        else:
            task.not_before_s = self._health.note(outcome, task.plan.events, began_s, under_way)
        situation = Situation(began_s, now_s, is_too_old, is_at_fault, task.rejected_s)
        has_ended = self._follow(task, outcome, situation).has_ended
        if task.is_culprit and has_ended and accepts(outcome, task.plan.events):
            self._queue.release()

    def settle_doubts(self, *, is_idle: bool) -> None:
        """Settle kept tasks whose cause is known by now. `is_idle`: no other tasks are left."""
        self._doubts.settle_probe()
        now_s = self._clock.monotonic_s()
        for task, outcome in self._doubts.judge(now_s, is_idle=is_idle):
            situation = Situation(now_s=now_s, rejected_s=now_s, is_final=True)
            self._follow(task, outcome, situation)

    def _follow(self, task: Task, outcome: Outcome, situation: Situation) -> Settlement:
        oldest_ms = task.plan.oldest_ms
        is_too_old = oldest_ms > 0 and self._clock.age_s(oldest_ms) > self._retry_for_s
        free_bytes = float("inf")
        if self._dead_limits.on_full == "hold":
            free_bytes = self._state.dead.max_bytes - self._state.dead.size_bytes
        situation = situation._replace(
            is_too_old=situation.is_too_old or is_too_old, free_bytes=free_bytes
        )
        settlement = settle(task, outcome, self._doubts.rejections, situation)
        if settlement.hold:
            kind = Hold.SETTINGS if isinstance(outcome, Held) else Hold.DEAD_LETTERS
            self._health.hold(kind, settlement.hold, outcome)
        self._state.count("failures", self._health.failures)
        self._health.failures = 0
        if settlement.has_ended:
            # The parts of the task inherit these times.
            if isinstance(outcome, Partial) and accepts(outcome, task.plan.events):
                task.failed_s = situation.began_s  # its remaining events failed
            elif not situation.is_at_fault:
                task.failed_s = 0.0
            task.rejected_s = (
                situation.now_s if settlement.hold else 0.0
            )  # the dead letters are full
            self._state.settle(task, settlement)
            if settlement.dead and not settlement.hold:
                self._health.found_space()
        elif settlement.is_unproven:
            task.rejected_s = situation.rejected_s or situation.now_s
            self._doubts.park(task, outcome)
        elif situation.is_at_fault:
            self._doubts.rejections.blame(0 if task.is_culprit else 1)
            if self._queue.is_surplus(task) and not situation.is_too_old:
                return self._follow(task, outcome, situation._replace(is_too_old=True))
            self._state.forget(task.plan)
            self._queue.set_apart(task, situation.now_s)
        else:
            self._queue.add(task)
        return settlement


def _failure(outcome: Outcome, events: int) -> Retry | None:
    """Return the failure that all events of a batch share, or None.

    A hold counts as well: the cause may be a firewall that rejects a string in one event.
    """
    if isinstance(outcome, Held) and not outcome.is_final:
        return Retry(outcome.reason, 0.0, outcome.status, outcome.response)
    if isinstance(outcome, Partial) and len(outcome.failed) == events:
        first = outcome.failed.first
        is_all = len(outcome.failed.only(Retry)) == events
        return first if is_all and isinstance(first, Retry) else None
    return outcome if isinstance(outcome, Retry) else None
