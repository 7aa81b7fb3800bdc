from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.reader cimport Method, Request
from pixelfast.collect.response cimport Response
from pixelfast.collect.sources cimport Source, Sources
from pixelfast.event.decoder cimport Decoder
from pixelfast.event.query cimport Slice
from pixelfast.spool.writer cimport SpoolWriter

cdef class Collector:
    cdef readonly Sources sources
    cdef readonly object responses
    cdef readonly Clock clock
    cdef readonly TrustedProxies proxies
    cdef readonly bint always_200
    cdef public SpoolWriter writer
    cdef Decoder _decoder
    cdef bytes _gif                     # the response to most requests
    cdef object _log

    cdef int respond(
        self, Request request, Method method, object waiter, Response* response
    ) except -1
    cdef int give_up(
        self, Request request, Method method, object error, Response* response
    ) except -1
    cdef int reject_unstored(self, Response* response) except -1
    cdef bytes render(self, Response* response)
    cdef int64_t _store(
        self,
        Request request,
        bint is_track,
        Source source,
        str address,
        int64_t now_ms,
        object waiter,
    ) except -99
    cdef int _collect(
        self,
        Request request,
        bint is_track,
        Slice query,
        object waiter,
        Response* response,
    ) except -1
    cdef int _reject(
        self, Source source, object error, bint is_hidden, Response* response
    ) except -1
    cdef bytes _render(self, Response* response)
    cdef bytes _render_failed(self, object error, Response* response)
    cdef dict _fill(self, Request request, Source source, str address)
