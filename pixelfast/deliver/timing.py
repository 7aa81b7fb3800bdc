"""The clock of delivery, and the intervals at which it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["DeliveryClock", "Jump", "Timings"]


_MAX_JUMPS = 16
_JUMP_S = 5.0  # a smaller difference is the slewing of a time service


def _since_boot_s() -> float:
    """Return the seconds since the machine booted, including time in suspension."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Jump(NamedTuple):
    """A jump of the wall clock: its time just before, and by how many seconds it jumped."""

    before_s: float
    seconds: float


class DeliveryClock:
    """Tell the time, and ages that do not depend on jumps of the wall clock.

    Attributes:
        monotonic_s: returns seconds from an arbitrary start; never goes back.
        wall_s: returns seconds since 1970; may jump.
        steady_s: returns seconds since the machine booted, to detect those jumps.
        offset_s: how far the wall clock was ahead of the steady clock when last compared.
        jumps: the last 16 known jumps.

    >>> DeliveryClock(monotonic_s=lambda: 7.0).monotonic_s()
    7.0
    """

    __slots__ = ("jumps", "monotonic_s", "offset_s", "steady_s", "wall_s")

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = _since_boot_s,
    ) -> None:
        self.monotonic_s = monotonic_s
        self.wall_s = wall_s
        self.steady_s = steady_s
        self.offset_s = wall_s() - steady_s()
        self.jumps: list[Jump] = []

    def look(self) -> float:
        """Detect a jump of the wall clock since the last call; return its seconds, or 0."""
        return self.expect(self.offset_s)

    def expect(self, offset_s: float) -> float:
        """Detect a jump as `look` does, compared with an offset from an earlier run."""
        now_s = self.steady_s()
        self.offset_s = self.wall_s() - now_s
        jump_s = self.offset_s - offset_s
        if abs(jump_s) < _JUMP_S:
            return 0.0
        self.jumps = [*self.jumps, Jump(offset_s + now_s, jump_s)][-_MAX_JUMPS:]
        return jump_s

    def age_s(self, at_ms: float) -> float:
        """Return the age of a wall time in seconds, at least 0.

        If the clock jumped, a time may have occurred both before and after the jump. The smaller
        age is then returned, so that a jump makes no event too old.
        """
        at_s = at_ms / 1000
        age_s = self.wall_s() - at_s
        steady_age_s = age_s - sum(jump_s for before_s, jump_s in self.jumps if at_s <= before_s)
        return max(0.0, steady_age_s if age_s < 0 else min(age_s, steady_age_s))

    def surely_before_ms(self, age_s: float) -> int:
        """Return a wall time before which every event is older than `age_s`, despite all jumps."""
        ahead_s = sum(max(0.0, jump_s) for _, jump_s in self.jumps)
        return int((self.wall_s() - ahead_s - age_s) * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The intervals of delivery, in seconds. The defaults are those of `pixelfast deliver`.

    Reading the spool:

    min_look_pause_s: shortest pause between two reads of the ends of the slots. The pause is the
        maximum age of a batch: an event that arrives just after a read is due at the next one. The
        more is read at once, the less an event costs.
    max_look_pause_s: longest such pause.
    idle_after_s: time without new events after which every pause has the maximum length.
    list_slots_s: time between two searches of the data directory for new slots.
    intake_turn_s: time for which one destination cuts batches before others get their turn.
    cutter_turn_s: time for which the slots are read in one turn. A read in progress is completed.

    Running:

    check_s: longest time a runner sleeps before it looks for something to do.
    revoke_s: time for which requests of a partition that is given to another process may be under
        way.
    stop_s: time for which a stopped runner continues delivering; less than the process has to stop.
    lock_retry_s: time between two attempts to lock a destination.
    min_restart_s, max_restart_s: shortest and longest pause before a failed runner is restarted.
    steady_s: run time of a runner after which its next failure counts as the first one.
    topic_s: time between two checks whether the topic of a cluster is another one.

    Writing the state of a destination:

    write_s: shortest time between two transactions.
    settled_s: longest time a settled batch waits for its transaction.
    replay_s: time between two searches for dead letters to replay.
    dead_age_s: time between two searches for dead letters over their limits.

    Judging failures:

    all_rejected_s: time in which a destination accepts nothing before it is held.
    quiet_s: time without another rejection after which rejected events become dead letters.
    space_s: time between two attempts while a destination waits for disk space.
    held_s: first pause of a destination that is held for its settings; it doubles each time.
    max_held_s: longest such pause.
    log_again_s: time after which a repeated message is logged again.
    recent_s: how long before the first failure of a batch an acceptance counts against the batch.
    partial_pause_s: shortest pause of events that failed while others of their batch did not.
    culprit_pause_s: first pause of an event that makes its destination fail; it doubles each time.
    max_culprit_pause_s: longest such pause.
    in_order_s: time an ordered destination must be down before newer events are sent as probes.
    selective_s: time after an accepted probe in which failures are blamed on single events.

    Disk space of the spool:

    figures_s: time between two reads of the figures of a destination whose runner has failed.
    clock_s: time between two checks for a jump of the wall clock.
    retention_s: time between two searches for segments that can be removed.
    drained_s: time between two checks whether a destination has finished a segment; if so, such a
        search follows.
    pressed_s: time after events expired for which a process that removes no segments searches as
        often.
    use_noted_s: time between two records that a destination is in use.
    forgotten_s: time for which events are kept for a destination removed from the settings.
    """

    min_look_pause_s: float = 0.01
    max_look_pause_s: float = 0.25
    idle_after_s: float = 2.0
    list_slots_s: float = 1.0
    intake_turn_s: float = 0.004
    cutter_turn_s: float = 0.002

    check_s: float = 0.25
    revoke_s: float = 5.0
    stop_s: float = 5.0
    lock_retry_s: float = 0.5
    min_restart_s: float = 0.5
    max_restart_s: float = 30.0
    steady_s: float = 60.0
    topic_s: float = 5.0

    write_s: float = 0.05
    settled_s: float = 0.2
    replay_s: float = 2.0
    dead_age_s: float = 60.0

    all_rejected_s: float = 2.0
    quiet_s: float = 5.0
    space_s: float = 1.0
    held_s: float = 5.0
    max_held_s: float = 60.0
    log_again_s: float = 60.0
    recent_s: float = 10.0
    partial_pause_s: float = 1.0
    culprit_pause_s: float = 0.5
    max_culprit_pause_s: float = 60.0
    in_order_s: float = 60.0
    selective_s: float = 60.0

    figures_s: float = 5.0
    clock_s: float = 1.0
    retention_s: float = 1.0
    drained_s: float = 0.1
    pressed_s: float = 10.0
    use_noted_s: float = 600.0
    forgotten_s: float = 86_400.0
