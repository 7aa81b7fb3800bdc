"""The clock and the intervals of delivery: everything that depends on time takes them from here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock", "Timings"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Tell the time.

    `monotonic_s` counts seconds from an arbitrary start and never goes back. `wall_s` counts
    seconds since 1970 and may jump.

    >>> Clock(monotonic_s=lambda: 7.0).monotonic_s()
    7.0
    """

    monotonic_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long delivery waits, in seconds. The defaults are those of `pixelfast deliver`.

    Reading the spool:

    min_look_pause_s: shortest pause between two looks at the ends of the slots. The pause is a
        quarter of a batch's maximum age, so that many small frames are read at once and an event
        still leaves about when it is due.
    max_look_pause_s: longest such pause.
    busy_look_pause_s: longest such pause after a look that filled a batch.
    idle_after_s: time without an event after which every pause is the longest.
    list_slots_s: time between two searches of the data directory for new slots.
    intake_turn_s: time that one destination cuts batches before others get their turn.
    cutter_turn_s: time that one look at the slots takes. A read that has begun is finished.

    Running:

    check_s: longest time a runner sleeps before it looks for something to do.
    stop_s: time that a stopped runner goes on delivering; less than a stop of the process may take.
    lock_retry_s: time between two attempts to lock a destination.
    min_restart_s, max_restart_s: bounds of the pause before a failed runner is restarted.
    steady_s: time after which a failure of a runner no longer counts with its earlier ones.

    Writing the state of a destination:

    write_s: shortest time between two transactions.
    settled_s: longest time a settled batch waits for its transaction.
    replay_s: time between two searches for dead letters that are to be sent again.
    dead_age_s: time between two searches for dead letters that are too old.

    Judging failures:

    all_rejected_s: time without any acceptance after which a destination that rejects is held.
    quiet_s: time without another rejection after which rejected events are judged.
    held_s: first pause of a destination that is held for its settings; it doubles.
    max_held_s: longest such pause.
    log_again_s: time in which a repeated message is logged once.
    recent_s: how long before the first failure of a batch an acceptance counts against the batch.
    partial_pause_s: shortest pause of events that failed while others of their batch did not.
    culprit_pause_s: first pause of an event that its destination fails at; it doubles.
    max_culprit_pause_s: longest such pause.
    in_order_s: time that an ordered destination is down before newer events go ahead as probes.
    selective_s: time for which an accepted probe means that the destination fails at some events.

    The spool's space:

    retention_s: time between two searches for segments that can be removed.
    use_noted_s: time between two notes that a destination is in use.
    forgotten_s: time that a destination removed from the settings still holds its events.
    """

    min_look_pause_s: float = 0.01
    max_look_pause_s: float = 0.25
    busy_look_pause_s: float = 0.05
    idle_after_s: float = 2.0
    list_slots_s: float = 1.0
    intake_turn_s: float = 0.004
    cutter_turn_s: float = 0.002

    check_s: float = 0.25
    stop_s: float = 5.0
    lock_retry_s: float = 0.5
    min_restart_s: float = 0.5
    max_restart_s: float = 30.0
    steady_s: float = 60.0

    write_s: float = 0.05
    settled_s: float = 0.2
    replay_s: float = 2.0
    dead_age_s: float = 60.0

    all_rejected_s: float = 2.0
    quiet_s: float = 5.0
    held_s: float = 5.0
    max_held_s: float = 60.0
    log_again_s: float = 60.0
    recent_s: float = 10.0
    partial_pause_s: float = 1.0
    culprit_pause_s: float = 0.5
    max_culprit_pause_s: float = 60.0
    in_order_s: float = 60.0
    selective_s: float = 60.0

    retention_s: float = 1.0
    use_noted_s: float = 600.0
    forgotten_s: float = 86_400.0
