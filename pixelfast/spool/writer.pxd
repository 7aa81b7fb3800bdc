from libc.stdint cimport int64_t, uint32_t

from pixelfast.spool.frames cimport CommitBatch

cdef enum Refusal:
    # Why an event was not taken; `SpoolWriter.take` returns it negated.
    FULL = 1            # the spool has no room
    OVERLOADED = 2      # too much, or for too long, waits for the disk
    DISK_ERROR = 3      # the disk failed
    CLOSED = 4          # the writer is closing

cdef class SpoolWriter:
    cdef readonly list names            # source names by number
    cdef readonly bint acks_at_once     # ack = received: nobody waits for the disk
    cdef bint _syncs                    # ack = synced
    cdef int64_t _free_bytes            # on the disk, as last measured
    cdef int64_t _max_waiting_bytes
    cdef int64_t _max_commit_bytes
    cdef double _max_wait_s
    cdef object _loop, _files, _committer, _on_stored, _log, _compress, _room
    # what waits
    cdef CommitBatch _open                    # takes events
    cdef object _queue                  # batches that are full, or that failed once
    cdef CommitBatch _in_flight               # the commit thread has it
    cdef list _spares
    cdef int64_t _ticket
    cdef int64_t _number_before         # the number before that of ticket 1's event
    cdef bint _is_scheduled
    # where it goes
    cdef object _segment                # SegmentFile that is written; None while there is none
    cdef object _next                   # SegmentFile made ahead
    cdef bint _is_preparing
    cdef double _last_sync_s
    cdef bint _has_unsynced
    # what it refuses
    cdef readonly int refusal           # 0 or a Refusal
    cdef bint _is_full
    cdef bint _is_late
    cdef int _broken                    # 0, or the errno that no new segment got around
    cdef bint _is_closing               # takes no events
    cdef bint _is_closed                # makes no segments
    cdef object _drained, _prepared     # futures that `close` waits for
    cdef double _measured_s
    # what it did
    cdef readonly int64_t used_bytes
    cdef readonly int64_t waiting_bytes
    cdef readonly int64_t stored_events
    cdef readonly int64_t stored_bytes
    cdef readonly int64_t lost_events   # ack = received only: answered, and then the disk failed
    cdef readonly int64_t commits
    cdef readonly int64_t failed_commits
    cdef readonly double commit_seconds
    cdef double _submitted_s

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int64_t take(
        self, uint32_t source, Py_ssize_t length, int64_t received_ms, object waiter
    ) except -99
    cdef int64_t append(
        self, uint32_t source, bytes event, int64_t received_ms, object waiter
    ) except -99
    cdef CommitBatch _fresh_batch(self)
