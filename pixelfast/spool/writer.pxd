from libc.stdint cimport int64_t, uint32_t

from pixelfast.spool.batch cimport CommitBatch
from pixelfast.spool.states cimport Receipt, StateMachine, WriterState

cdef enum CommitState:
    IDLE
    SCHEDULED           # the next turn of the loop starts one
    UNDER_WAY           # the commit thread has it
    DELAYED             # `resume` starts one

cdef class SyncSchedule:
    cdef bint is_each_synced            # ack = synced
    cdef double _last_s                 # when the last sync was submitted, by the loop's clock
    cdef Py_ssize_t unsynced_bytes      # what was written since

    cdef bint is_due(self, double now_s) noexcept
    cdef bint submit(self, double now_s, Py_ssize_t size, bint sync) noexcept

cdef class SpoolWriter:
    cdef readonly list names            # source names by number
    cdef readonly bint acks_at_once     # ack = received: no waiter waits for the disk
    cdef int64_t _free_bytes            # on the disk, as last measured
    cdef int64_t _max_waiting_bytes
    cdef int64_t _max_commit_bytes
    cdef double _max_wait_s
    cdef object _acks                   # releases the waiters instead of a commit; or None
    cdef bint _is_unreplicated          # events are rejected until the brokers respond
    cdef object _loop, _files, _committer, _on_stored, _log, _compress, _bounds
    # whether it accepts events
    cdef StateMachine _states
    cdef object _drained                # the future for which `close` waits
    cdef object _space                  # SpaceWatch
    cdef int64_t _recovery              # counts the failures of the disk
    cdef bint _is_awaited               # the segment that is being created ends FAILING
    # waiting events
    cdef CommitBatch _open              # accepts events
    cdef object _queue                  # batches that are full, or that failed once
    cdef list _spares
    cdef int64_t _ticket
    cdef int64_t _number_before         # the number before that of ticket 1's event
    # the next commit, or the one under way
    cdef CommitState _commit
    cdef CommitBatch _in_flight         # None if it only syncs
    cdef SyncSchedule _syncs
    # segments
    cdef object _supply                 # SegmentSupply
    cdef object _segment                # SegmentFile that is written; None until there is one
    # counters
    cdef readonly int64_t used_bytes
    cdef readonly int64_t waiting_bytes
    cdef readonly int64_t stored_events
    cdef readonly int64_t stored_bytes
    cdef readonly int64_t lost_events   # acknowledged and then lost; only with ack = received
    cdef readonly int64_t commits
    cdef readonly int64_t failed_commits

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int take(
        self,
        uint32_t source,
        Py_ssize_t length,
        int64_t received_ms,
        object waiter,
        Receipt* receipt,
    ) except -1
    cdef CommitBatch _close_open_batch(self)
    cdef int _enter(self, WriterState state, int error=*) except -1
    cdef int _follow(self, bint is_late) except -1
    cdef bint _is_full(self) except -1
    cdef bint _give_up_overdue(self, double latest_s) except -1
    cdef int _submit(self, CommitBatch batch, bint sync) except -1
    cdef int _release(self, CommitBatch batch) except -1
    cdef int _hand_over(self, CommitBatch batch) except -1
    cdef int _count(self, CommitBatch batch) except -1
    cdef int _abandon(self, CommitBatch batch) except -1
    cdef int _leave_segment(self, bint is_sound) except -1
    cdef int _go_on(self) except -1
    cdef int _on_failure(self, CommitBatch batch, int error) except -1
    cdef int _give_up(self, int error) except -1
    cdef int _come_back(self) except -1
    cdef int _end(self) except -1
