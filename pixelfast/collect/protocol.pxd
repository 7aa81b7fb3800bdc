from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.sources cimport Source, Sources
from pixelfast.event.decoder cimport Decoder
from pixelfast.spool.writer cimport SpoolWriter

cdef class Collector:
    # What all connections of one process share.
    cdef readonly Sources sources
    cdef readonly object answers
    cdef readonly Clock clock
    cdef public SpoolWriter writer
    cdef Decoder decoder
    cdef TrustedProxies proxies
    cdef bint always_200
    cdef int max_connections
    cdef double header_timeout_s
    cdef double idle_timeout_s
    cdef object log
    cdef readonly set connections
    cdef readonly bint is_draining
    cdef bytes gif                      # the answer to most requests
    cdef readonly int64_t requests
    cdef readonly dict answered         # status: count
    cdef readonly int64_t dropped_answers

    cdef int count(self, int status) except -1

cdef class Connection:
    cdef Collector _shared
    # per connection
    cdef object _transport, _parser, _feed
    cdef str _peer
    cdef bint _is_proxied               # the peer is a trusted proxy
    cdef list _answers                  # bytes, in the order of the requests
    cdef list _tickets                  # beside them: 0 ready, else the ticket it waits for
    cdef bytes _backlog                 # received, and not parsed: the peer does not read answers
    cdef bint _is_consuming             # inside data_received: answers gather for one write
    cdef bint _is_write_paused
    cdef bint _is_read_paused
    cdef bint _is_last                  # no request is taken after this
    cdef bint _is_lingering             # everything is said; waits for the peer to close
    cdef bint _is_dirty                 # has answers that became ready, not written yet
    cdef double _since_s                # when what the connection is at began
    # per request
    cdef bytes _url
    cdef bytes _user_agent, _origin, _forwarded_for, _real_ip, _referer, _languages
    cdef bint _is_in_head, _is_started, _says_keep_alive, _expects_continue
    cdef Py_ssize_t _head_bytes, _header_bytes, _body_bytes
    cdef int _header_count

    cdef int _reset_request(self) except -1
    cdef int _consume(self, bytes data) except -1
    cdef int _feed_chunk(self, object chunk) except -1
    cdef int _handle(self) except -1
    cdef int _collect(self, bint is_track, Py_ssize_t query, Py_ssize_t query_end, int connection) except -1
    cdef int _refuse_pixel(self, Source source, object error, int connection) except -1
    cdef dict _fill(self, Source source, str address)
    cdef int _give_up(self, object error) except -1
    cdef int _push(self, bytes answer, int64_t ticket, int status) except -1
    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1
    cdef int _flush(self) except -1
    cdef int _resume(self) except -1
    cdef bint _is_choked(self) noexcept
    cdef int _finish(self) except -1
    cdef int _sweep(self, double now_s) except -1
