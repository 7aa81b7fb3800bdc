from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.reader cimport Method, Request
from pixelfast.collect.response cimport Response
from pixelfast.collect.sources cimport ActiveSource, Sources
from pixelfast.event.slices cimport Slice
from pixelfast.event.target cimport Route
from pixelfast.event.writer cimport EventWriter, Sink
from pixelfast.spool.states cimport Receipt
from pixelfast.spool.writer cimport SpoolWriter

cdef class Collector:
    cdef readonly Sources sources
    cdef readonly object responses
    cdef readonly Clock clock
    cdef readonly TrustedProxies proxies
    cdef readonly bytes message_id_header   # empty if not configured
    cdef readonly bint always_200
    cdef readonly object rejections     # a RejectionLog, or None
    cdef public bint fails_health_checks  # although events can be stored
    cdef public SpoolWriter writer
    cdef bytes _health_path             # empty if disabled
    cdef EventWriter _events
    cdef Sink _sink                     # writes into the spool
    cdef bytes _gif                     # the most common response, rendered
    cdef bytes _gif_said                # the same with `Connection: keep-alive`
    cdef object _log

    cdef int respond(
        self, Request request, Method method, object waiter, Response* response
    ) except -1
    cdef int reject_unread(
        self, Request request, Method method, object error, Response* response
    ) except -1
    cdef int reject_unstored(self, Response* response) except -1
    cdef bytes render(self, Response* response)
    cdef int _respond_elsewhere(
        self, Request request, Method method, Response* response
    ) except -1
    cdef Receipt _store(
        self, Request request, ActiveSource source, str address, int64_t now_ms, object waiter
    ) except *
    cdef int _collect(
        self,
        Request request,
        Route route,
        Slice query,
        object waiter,
        Response* response,
    ) except -1
    cdef int _reject(
        self, ActiveSource source, object error, bint is_hidden, Response* response
    ) except -1
    cdef int _note(
        self, ActiveSource source, str reason, int status, Request request, str write_key
    ) except -1
    cdef int _render_gif(self) except -1
    cdef bytes _render(self, Response* response)
    cdef bytes _render_failed(self, object error, Response* response)
