from libc.stdint cimport int64_t

cdef enum WriterState:
    OPEN        # accepts events
    LATE        # the oldest event waits for too long
    FULL        # the slot or the disk has no space
    FAILING     # the disk failed twice in a row, or no segment can be created
    CLOSING     # accepts no events, stores those that wait
    CLOSED      # nothing waits; the slot is released

cdef enum Rejection:
    # Why an event was rejected. `REJECTIONS` has the reasons as they are sent to clients.
    SPOOL_FULL = 1
    OVERLOADED = 2
    DISK_ERROR = 3
    SHUTTING_DOWN = 4
    DISK_FULL = 5
    UNREPLICATED = 6

cdef struct Receipt:
    # The result of offering an event.
    int64_t ticket      # from 1 on, or 0 if it was rejected
    int rejection       # 0, or a Rejection

cdef class StateMachine:
    cdef WriterState state
    cdef int rejection  # why events are rejected: 0 or a Rejection

    cdef int change(self, WriterState state) except -1
    cdef int enter(
        self, WriterState state, bint is_space_lacking, bint is_unreplicated
    ) except -1
