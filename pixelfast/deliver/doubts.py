"""Whether events or their destination cause a failure; other events are sent to find out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.health import Hold
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry, accepts
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.probe import (
    MAX_PROBED,
    Probed,
    newest_events,
    send_all,
    send_some,
)
from pixelfast.deliver.queue import Queue
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.tasks import Task
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import Position

__all__ = ["Doubts"]


class Doubts:
    """Keep rejected events until the cause is known, and probe with the newest events."""

    def __init__(
        self,
        outlet: Outlet,
        log: EventLog,
        selection: Selection,
        queue: Queue,
        wake_up: Callable[[], None],
        timings: Timings,
        clock: DeliveryClock,
    ) -> None:
        self.rejections = outlet.rejections
        self._timings = timings
        self._clock = clock
        self._outlet = outlet
        self._sender = outlet.sender
        self._health = outlet.health
        self._log = log
        self.selection = selection  # the runner replaces it when the settings change
        self._queue = queue
        self._wake_up = wake_up
        self._parked: list[tuple[Task, Outcome]] = []  # rejected, cause not known yet
        self._probe_accepted_s = float("-inf")  # when a probe was last accepted
        self._probe: asyncio.Task[tuple[Probed, float]] | None = None
        self._was_newest = False  # the last probe of a failing destination sent the newest events

    def __len__(self) -> int:
        return len(self._parked)

    # --- rejected events ---------------------------------------------------------------------

    def park(self, task: Task, outcome: Outcome) -> None:
        """Keep a task whose events were rejected."""
        self._parked.append((task, outcome))

    def judge(self, now_s: float, *, is_idle: bool) -> list[tuple[Task, Outcome]]:
        """Return the tasks whose rejection is final, and retry or hold the others.

        Once the destination has accepted other events, the kept ones are retried; a second
        rejection is final. If everything is rejected, the destination is held. If no more events
        arrive (`is_idle`), the first rejection is final after a while.
        """
        if not self._parked:
            return []
        if self._parked[0][0].rejected_s <= self.rejections.accepted_s:
            self.take_back()
        elif self._health.hold_kind is Hold.REJECTIONS or self.rejections.must_hold(now_s):
            self._hold(self._parked[-1][1])
            self.take_back()
        elif is_idle and self.rejections.is_quiet(now_s):
            parked, self._parked = self._parked, []
            return parked
        return []

    def take_back(self) -> None:
        """Put all kept tasks back into the queue."""
        for task, _ in self._parked:
            self._queue.add(task)
        self._parked.clear()

    def _hold(self, outcome: Outcome) -> None:
        if isinstance(outcome, Partial):
            outcome = outcome.failed.first
        if self._health.hold_kind is Hold.REJECTIONS:
            reason = self._health.breaker.reason  # the same reason is not logged again
        else:
            reason = f"every event is rejected: {getattr(outcome, 'reason', '')}"
        self._health.hold(Hold.REJECTIONS, reason, outcome)

    # --- probes of the newest events ---------------------------------------------------------

    def send_newest(self, now_s: float, cursors: Mapping[int, Position], *, in_order: bool) -> bool:
        """Send the newest events as a probe if it is their turn; return whether batches must wait.

        A destination that is down gets one request at a time, in turn a planned batch and a probe
        with the newest events. A destination that rejects everything gets both at once. If the
        order of events matters (`in_order`), a probe is sent only after a minute of failures.
        """
        hold = self._health.hold_kind
        if not self._sender.may_send_ahead or hold is Hold.DEAD_LETTERS:
            return False
        is_down = hold is not Hold.REJECTIONS
        if is_down and not self._sender.blames_events:
            return False
        if (
            is_down
            and in_order
            and now_s - self._health.breaker.opened_s < self._timings.in_order_s
        ):
            return False
        self._was_newest = is_down and not self._was_newest
        if is_down and not self._was_newest:
            return False
        self._probe = asyncio.ensure_future(self._send_newest(cursors, is_down=is_down))
        self._outlet.probes += 1
        self._probe.add_done_callback(lambda _: self._wake_up())
        return is_down

    async def _send_newest(
        self, cursors: Mapping[int, Position], *, is_down: bool
    ) -> tuple[Probed, float]:
        events = await self._sender.in_thread(newest_events, self._log, cursors, self.selection)
        if not events.events:
            events = self._queue.some_events(MAX_PROBED)
        began_s = self._clock.monotonic_s()
        if not events.events:
            return Probed(Rejected("no events"), 0), began_s
        send = send_some if is_down else send_all
        return await send(self._sender, events), began_s

    def is_selective(self, now_s: float) -> bool:
        """Whether a probe was accepted recently: the destination may fail only for some events."""
        return now_s - self._probe_accepted_s < self._timings.selective_s

    def settle_probe(self) -> None:
        """Handle the outcome of the probe, if it is finished."""
        if self._probe is None or not self._probe.done():
            return
        probe, self._probe = self._probe, None
        self._outlet.probes -= 1
        (outcome, events, accepted, failed), began_s = probe.result()
        if accepts(outcome, events):
            self._probe_accepted_s = self._clock.monotonic_s()
            self.rejections.accept("", accepted, self._clock.monotonic_s())
            self.rejections.blame(failed)
            self._health.note(Accepted(), events, began_s, 1)
        elif isinstance(outcome, Held):
            self._health.hold(Hold.SETTINGS, outcome.reason, outcome)
        elif self._health.hold_kind is Hold.REJECTIONS and not isinstance(outcome, Retry):
            self._hold(outcome)
        elif events:
            self._health.note(outcome, events, began_s, 1)

    async def cancel(self) -> None:
        """Forget all kept tasks and cancel a probe that is under way."""
        self._parked.clear()
        probe, self._probe = self._probe, None
        if probe is not None:
            self._outlet.probes -= 1
            probe.cancel()
            await asyncio.wait({probe})

    @property
    def oldest_times_ms(self) -> list[int]:
        """When the oldest event of each kept task was received."""
        return [task.plan.oldest_ms for task, _ in self._parked]
