from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.request cimport Method, Request
from pixelfast.collect.sources cimport Source, Sources
from pixelfast.event.decoder cimport Decoder
from pixelfast.event.query cimport Slice
from pixelfast.spool.writer cimport SpoolWriter

cdef struct Reply:
    int status
    int64_t ticket      # 0: the answer is ready; else the event's ticket that it waits for

cdef class Collector:
    cdef readonly Sources sources
    cdef readonly object answers
    cdef readonly Clock clock
    cdef readonly TrustedProxies proxies
    cdef readonly bint always_200
    cdef public SpoolWriter writer
    cdef Decoder _decoder
    cdef bytes _gif                     # the answer to most requests

    cdef bytes answer(
        self, Request request, Method method, int connection, object waiter, Reply* reply
    )
    cdef int64_t _store(
        self,
        Request request,
        bint is_track,
        Source source,
        str address,
        int64_t now_ms,
        object waiter,
    ) except -99
    cdef bytes refuse(self, Source source, object error, int connection, Slice origin, Reply* reply)
    cdef bytes give_up(self, Request request, Method method, object error, Reply* reply)
    cdef bytes _collect(
        self,
        Request request,
        bint is_track,
        Slice query,
        int connection,
        object waiter,
        Reply* reply,
    )
    cdef dict _fill(self, Request request, Source source, str address)
