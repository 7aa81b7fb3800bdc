from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.collector cimport Collector
from pixelfast.collect.flow_control cimport FlowControl
from pixelfast.collect.reader cimport Method, Reader, Request
from pixelfast.collect.response cimport Response, ResponseQueue
from pixelfast.spool.histogram cimport Histogram

cpdef enum:
    MAX_OVER_LIMIT = 16     # connections over `max_connections` that may linger

cpdef enum State:
    # The order matters: requests are read up to BODY, and input is ignored from LAST on.
    IDLE
    HEAD
    BODY
    LAST
    HALF_CLOSED
    LINGERING
    CLOSED

cdef inline unsigned int states_after(State state) noexcept:
    # Return the states that may follow, as bits: the table in `connection.pyx`. CLOSED may follow
    # any other state.
    if state == State.IDLE:
        return 1 << State.HEAD | 1 << State.BODY | 1 << State.LAST | 1 << State.HALF_CLOSED
    if state == State.HEAD:
        return 1 << State.IDLE | 1 << State.BODY | 1 << State.LAST | 1 << State.HALF_CLOSED
    if state == State.BODY:
        return 1 << State.IDLE | 1 << State.LAST | 1 << State.HALF_CLOSED
    if state == State.LAST:
        return 1 << State.HALF_CLOSED | 1 << State.LINGERING
    return 1 << State.LINGERING if state == State.HALF_CLOSED else 0


cdef class Connections:
    cdef readonly Collector collector
    cdef readonly set open
    cdef public int handshakes          # TLS connections that are not in `open` yet
    cdef public bint is_draining
    cdef readonly int64_t requests
    cdef readonly dict responses        # {status: count}
    cdef readonly int64_t dropped_responses
    cdef readonly int64_t held_bytes    # of all connections, limited by `max_memory`
    cdef readonly int64_t evicted
    cdef readonly int64_t accepted
    cdef Histogram[6] _durations        # of responses, by the first digit of the status
    cdef Clock _clock
    cdef Request _plain                 # the plain GET being scanned, shared by all connections
    cdef readonly int max_connections
    cdef int64_t _max_memory
    cdef int64_t _evicted_logged        # the part of `evicted` that was logged
    cdef double _header_timeout_s
    cdef double _idle_timeout_s
    cdef object _log

    cdef int _count(self, int status) except -1
    cdef void _measure(self, const Response* response) noexcept
    cdef int _free_memory(self) except -1

cdef class Connection:
    cdef State _state
    cdef double _since_s                # when its current wait began
    cdef Connections _all
    cdef Collector _collector
    cdef object _transport              # None once it is closed
    cdef str _peer
    cdef bint _is_proxied
    cdef bint _is_fresh                 # no request has arrived yet
    cdef Reader _reader                 # None until needed
    cdef bytes _unparsed                # input that is not parsed yet, or None
    cdef ResponseQueue _responses
    cdef FlowControl _flow

    cdef int _enter(self, State state) except -1
    # requests
    cdef int _parse(self, bytes data) except -1
    cdef Py_ssize_t _take_plain(self, bytes data, Py_ssize_t start) except -1
    cdef Py_ssize_t _take_any(self, bytes data, Py_ssize_t start) except -1
    cdef Reader _need_reader(self)
    cdef int _respond_to_read(self) except -1
    cdef int _respond(self, Request request, Method method, int connection) except -1
    cdef int _reject(self, object error) except -1
    cdef int _reject_unread(self, object error, Request request, Method method) except -1
    cdef int _drop_reader(self) except -1
    # responses
    cdef int _push(self, Response response) except -1
    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1
    cdef int _flush(self) except -1
    cdef bytes _take(self, int count)
    cdef int _account(self) except -1
    # closing
    cdef int _drain(self) except -1
    cdef int _sweep(self, double now_s) except -1
    cdef int _linger(self) except -1
    cdef int _abort(self) except -1
    cdef int _release(self) except -1
