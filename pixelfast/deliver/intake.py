"""When to look at the spool for one destination, and when a batch is due."""

from __future__ import annotations

import time
from collections.abc import Callable

from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cutter import Cutter

__all__ = ["Intake"]

# The pause between two looks at the ends of the slots: a quarter of a batch's age, in these bounds.
# So many small frames are read at once, and an event still leaves about as soon as it is due.
_LEAST_PAUSE_S = 0.01
_MOST_PAUSE_S = 0.25
_BUSY_PAUSE_S = 0.05  # where a batch was full before that
_IDLE_AFTER_S = 2.0  # without an event; from then on the longest pause
_NEW_SLOTS_S = 1.0
_TURN_S = 0.004  # of cutting; then other destinations get their turn


class Intake:
    """Cuts batches at the pace that their age allows.

    A batch is due `max_age_s` after its first event came, as far as that is known: events that are
    new came since the last look. `clock` counts monotonic seconds, `wall_clock` seconds since 1970.
    """

    def __init__(
        self,
        cutter: Cutter,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.cutter = cutter
        self.next_look_s = 0.0  # when the ends of the slots are to be looked at again
        self._clock = clock
        self._wall_clock = wall_clock
        self._looked_s = self._listed_s = clock()
        self._moved_s = clock()  # when something was there last
        self._began_s = 0.0  # when the first event of the open batch came; 0: it has none

    def cut(
        self, plan: Callable[[Cut], None], has_room: Callable[[], bool], *, is_stopping: bool
    ) -> None:
        """Pass each batch that is full or due to `plan`, while there is room and for a few ms.

        `is_stopping`: what is there is due.
        """
        now_s = self._clock()
        cutter, max_age_s = self.cutter, self.cutter.limits.max_age_s
        if is_stopping or now_s - self._listed_s >= _NEW_SLOTS_S:
            self._listed_s = now_s
            cutter.find_slots()
        before_s, self._looked_s = self._looked_s, now_s
        has_filled = False
        while has_room():
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
            if not cutter.has_more or self._clock() - now_s >= _TURN_S:
                break
        self.next_look_s = now_s
        if not cutter.has_more:
            pause_s = min(max_age_s / 4, _BUSY_PAUSE_S if has_filled else _MOST_PAUSE_S)
            if now_s - self._moved_s > _IDLE_AFTER_S:
                pause_s = _MOST_PAUSE_S
            self.next_look_s += max(_LEAST_PAUSE_S, pause_s)
            if self._began_s:
                self.next_look_s = min(self.next_look_s, self._began_s + max_age_s)

    def close_batch(self) -> Cut:
        """The open batch, due or not; the next one begins."""
        self._began_s = 0.0
        return self.cutter.close_batch()

    def _age_s(self) -> float:
        oldest_ms = self.cutter.oldest_ms
        return max(0.0, self._wall_clock() - oldest_ms / 1000) if oldest_ms else 0.0
