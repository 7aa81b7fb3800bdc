"""When to read the spool for one destination, and when a batch is due."""

from __future__ import annotations

from collections.abc import Callable

from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["Intake"]


class Intake:
    """Cut batches when they are full, or when their first event is `max_age_s` old.

    The age of a new event is estimated: it arrived after the previous read of the spool.

    Attributes:
        cutter: cuts the batches.
        next_look_s: when the ends of the slots are to be read again, by the monotonic clock.
    """

    def __init__(
        self,
        cutter: Cutter,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    ) -> None:
        self.cutter = cutter
        self.next_look_s = 0.0
        self._timings = timings
        self._clock = clock
        self._looked_s = self._listed_s = clock.monotonic_s()
        self._moved_s = clock.monotonic_s()  # when the spool last had new events
        self._began_s = 0.0  # when the first event of the open batch arrived; 0 if it has none

    def cut(
        self, plan: Callable[[Cut], None], may_cut: Callable[[], bool], *, is_stopping: bool
    ) -> None:
        """Pass each batch that is full or due to `plan`, while `may_cut` and for a few ms.

        If `is_stopping`, every batch is due.
        """
        timings, now_s = self._timings, self._clock.monotonic_s()
        cutter, max_age_s = self.cutter, self.cutter.limits.max_age_s
        if is_stopping or now_s - self._listed_s >= timings.list_slots_s:
            self._listed_s = now_s
            cutter.find_slots()
        before_s, self._looked_s = self._looked_s, now_s
        while may_cut():
            is_full = cutter.cut()
            if not cutter.has_moved():
                break
            self._moved_s = now_s
            if not self._began_s:
                self._began_s = max(before_s, now_s - self._age_s())
            if not (is_full or is_stopping or now_s - self._began_s >= max_age_s):
                break
            plan(self.close_batch())
            if not cutter.has_more or self._clock.monotonic_s() - now_s >= timings.intake_turn_s:
                break
        self.next_look_s = now_s
        if not cutter.has_more:
            pause_s = min(max_age_s, timings.max_look_pause_s)
            if now_s - self._moved_s > timings.idle_after_s:
                pause_s = timings.max_look_pause_s
            self.next_look_s += max(timings.min_look_pause_s, pause_s)
            if self._began_s:
                self.next_look_s = min(self.next_look_s, self._began_s + max_age_s)

    def close_batch(self) -> Cut:
        """Return the open batch, due or not, and begin the next one."""
        self._began_s = 0.0
        return self.cutter.close_batch()

    def _age_s(self) -> float:
        oldest_ms = self.cutter.oldest_ms
        return self._clock.age_s(oldest_ms) if oldest_ms else 0.0
