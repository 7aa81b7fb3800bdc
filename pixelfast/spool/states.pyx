"""The states of a spool writer, and the reasons why it rejects events.

    from      to        when
    OPEN      LATE      an event has waited for longer than `max_wait_s`
    LATE      OPEN      none has, at the next check
    OPEN      FULL      the slot takes `max_bytes`, or the disk has less than `min_free`
    LATE      FULL      the same; a full slot may be late as well, and counts as full
    FULL      OPEN      there is space again
    FULL      LATE      there is space again, and events wait for too long
    OPEN      FAILING   a commit failed twice, or there is no segment and none can be created
    LATE      FAILING   the same
    FULL      FAILING   the same
    FAILING   OPEN      there is a segment to continue with
    FAILING   FULL      the same, and there is no space
    OPEN      CLOSING   `close` was called
    LATE      CLOSING   the same
    FULL      CLOSING   the same
    FAILING   CLOSED    the same: nothing waits
    CLOSING   CLOSED    nothing waits any more: all is stored, or the disk failed

Only an open writer accepts events. A writer that is open, late or full stores those that wait.
"""

from types import MappingProxyType

__all__ = ["REJECTIONS", "STATES", "TRANSITIONS", "StateMachine"]

STATES = ("open", "late", "full", "failing", "closing", "closed")  # by WriterState
TRANSITIONS = MappingProxyType({
    "open": ("late", "full", "failing", "closing"),
    "late": ("open", "full", "failing", "closing"),
    "full": ("open", "late", "failing", "closing"),
    "failing": ("open", "full", "closed"),
    "closing": ("closed",),
    "closed": (),
})

REJECTIONS = MappingProxyType({
    Rejection.SPOOL_FULL: "spool-full",
    Rejection.DISK_FULL: "disk-full",
    Rejection.OVERLOADED: "spool-overloaded",
    Rejection.DISK_ERROR: "disk-error",
    Rejection.SHUTTING_DOWN: "shutting-down",
    Rejection.UNREPLICATED: "brokers-unavailable",
})


cdef class StateMachine:
    """The state of a writer; the only place where it changes."""

    @property
    def name(self):
        return STATES[self.state]

    def change_to(self, str name not None):
        self.change(<WriterState><int>STATES.index(name))

    cdef int change(self, WriterState state) except -1:
        before, after = STATES[self.state], STATES[state]
        if after not in TRANSITIONS[before]:
            raise AssertionError(f"a spool writer can't go from {before} to {after}")
        self.state = state
        return 0

    @property
    def reason(self):
        return REJECTIONS.get(self.rejection, "")

    cdef int enter(
        self, WriterState state, bint is_space_lacking, bint is_unreplicated
    ) except -1:
        # Change to a state, or stay in it for a reason that may be another one.
        if state != self.state:
            self.change(state)
        if state == WriterState.OPEN:
            self.rejection = Rejection.UNREPLICATED if is_unreplicated else 0
        elif state == WriterState.LATE:
            self.rejection = Rejection.OVERLOADED
        elif state == WriterState.FULL:
            self.rejection = Rejection.DISK_FULL if is_space_lacking else Rejection.SPOOL_FULL
        elif state == WriterState.FAILING:
            self.rejection = Rejection.DISK_FULL if is_space_lacking else Rejection.DISK_ERROR
        else:
            self.rejection = Rejection.SHUTTING_DOWN
        return 0
