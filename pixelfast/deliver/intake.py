"""When to look at the spool for one destination, and when a batch is due."""

from __future__ import annotations

from collections.abc import Callable

from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["Intake"]


class Intake:
    """Cuts batches at the pace that their age allows.

    A batch is due `max_age_s` after its first event came, as far as that is known: events that are
    new came since the last look.
    """

    def __init__(
        self,
        cutter: Cutter,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    ) -> None:
        self.cutter = cutter
        self.next_look_s = 0.0  # when the ends of the slots are to be looked at again
        self._timings = timings
        self._clock = clock
        self._looked_s = self._listed_s = clock.monotonic_s()
        self._moved_s = clock.monotonic_s()  # when something was there last
        self._began_s = 0.0  # when the first event of the open batch came; 0: it has none

    def cut(
        self, plan: Callable[[Cut], None], may_cut: Callable[[], bool], *, is_stopping: bool
    ) -> None:
        """Pass each batch that is full or due to `plan`, while there is room and for a few ms.

        `is_stopping`: what is there is due.
        """
        timings, now_s = self._timings, self._clock.monotonic_s()
        cutter, max_age_s = self.cutter, self.cutter.limits.max_age_s
        if is_stopping or now_s - self._listed_s >= timings.list_slots_s:
            self._listed_s = now_s
            cutter.find_slots()
        before_s, self._looked_s = self._looked_s, now_s
        has_filled = False
        while may_cut():
            is_full = cutter.cut()
            has_filled = has_filled or is_full
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
            max_s = timings.busy_look_pause_s if has_filled else timings.max_look_pause_s
            pause_s = min(max_age_s / 4, max_s)
            if now_s - self._moved_s > timings.idle_after_s:
                pause_s = timings.max_look_pause_s
            self.next_look_s += max(timings.min_look_pause_s, pause_s)
            if self._began_s:
                self.next_look_s = min(self.next_look_s, self._began_s + max_age_s)

    def close_batch(self) -> Cut:
        """The open batch, due or not; the next one begins."""
        self._began_s = 0.0
        return self.cutter.close_batch()

    def _age_s(self) -> float:
        oldest_ms = self.cutter.oldest_ms
        return self._clock.age_s(oldest_ms) if oldest_ms else 0.0
