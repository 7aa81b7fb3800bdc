from libc.stdint cimport int64_t

from pixelfast.collect.acks cimport Waiter
from pixelfast.collect.clock cimport Clock
from pixelfast.collect.collector cimport Collector
from pixelfast.collect.reader cimport Reader
from pixelfast.collect.request cimport Method, Request
from pixelfast.collect.response cimport Response, ResponseQueue

cdef class Connections:
    cdef readonly Collector collector
    cdef readonly set open
    cdef readonly bint is_draining
    cdef readonly int64_t requests
    cdef readonly dict answered         # status: count
    cdef readonly int64_t dropped_answers
    cdef readonly int64_t held_bytes    # of all connections: what `max_memory` bounds
    cdef readonly int64_t evicted
    cdef Clock _clock
    cdef Request _plain                 # the plain GET that is looked at, of any connection
    cdef int _max_connections
    cdef int64_t _max_memory
    cdef int64_t _evicted_told          # of `evicted`, as far as logged
    cdef double _header_timeout_s
    cdef double _idle_timeout_s
    cdef object _log

    cdef int count(self, int status) except -1
    cdef int _make_room(self) except -1

cdef class Connection(Waiter):
    cdef Connections _all
    cdef Collector _collector
    cdef object _transport
    cdef int _fd                        # the transport's, -1 where it has none or is closed
    cdef str _peer
    cdef bint _is_proxied
    cdef ResponseQueue _responses
    cdef Py_ssize_t _unsent_bytes       # that the transport holds: the peer does not read them
    cdef Py_ssize_t _held_bytes         # all that this connection holds, as last counted
    # reading
    cdef Reader _reader                 # None until something comes that is no plain GET
    cdef bytes _unparsed                # received; None where everything is parsed
    cdef bint _is_cut                   # `_unparsed` waits for room, not for more bytes
    cdef bint _is_consuming             # inside data_received: answers gather for one write
    cdef bint _is_write_paused
    cdef bint _is_read_paused
    cdef bint _is_last                  # no request is taken after this
    cdef bint _has_eof
    cdef bint _is_lingering             # all is said; waits for the peer to close
    cdef bint _is_started               # part of a request is here
    cdef double _since_s                # when what the connection is at began

    cdef int _consume(self, bytes data) except -1
    cdef Py_ssize_t _take_plain(self, bytes data, Py_ssize_t start) except -1
    cdef Py_ssize_t _take_any(self, bytes data, Py_ssize_t start) except -1
    cdef Reader _need_reader(self)
    cdef int _answer_read(self) except -1
    cdef int _answer(self, Request request, Method method, int connection) except -1
    cdef int _drop_reader(self) except -1
    cdef int _fail(self, object error) except -1
    cdef int _give_up(self, object error, Request request, Method method) except -1
    cdef int _push(self, Response response) except -1
    cdef bytes _take(self, int count)
    cdef bint _is_choked(self) noexcept
    cdef int _account(self) except -1
    cdef int _release(self) except -1
    cdef int _finish(self) except -1
    cdef int _sweep(self, double now_s) except -1
