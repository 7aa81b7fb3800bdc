"""Respond to requests: routes and methods, and storing events in the spool."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject, Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint32_t

from pixelfast.collect.limits cimport MAX_ORIGIN_BYTES
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.reader cimport Method, Request, as_request_error, copy_of, slice_of
from pixelfast.collect.response cimport Kind, Response, owned
from pixelfast.collect.sources cimport ActiveKey, ActiveSource, Sources
from pixelfast.event.message_ids cimport is_message_id
from pixelfast.event.paths cimport is_below, is_path
from pixelfast.event.slices cimport Slice, stripped
from pixelfast.event.target cimport Route, split_target
from pixelfast.event.writer cimport Additions, EventWriter, Sink
from pixelfast.spool.states cimport Receipt
from pixelfast.spool.writer cimport SpoolWriter

import structlog

from pixelfast.collect import responses as _responses
from pixelfast.errors import RequestError
from pixelfast.spool import REJECTIONS

__all__ = ["Collector"]

cdef enum:
    RETRY_AFTER_S = 1
    MAX_RETRY_AFTER_S = 2147483647

cdef int KEEP = _responses.KEEP
cdef int CLOSE = _responses.CLOSE
cdef bytes CONTINUE = _responses.CONTINUE
cdef bytes PIXEL_FOLDER = b"/pixel/"
cdef list _INVALID_MESSAGE_ID = [("invalid-message-id", None)]
cdef str NOT_FOUND = "not-found"
cdef str NOT_STORED = "not-stored"
cdef str SHUTTING_DOWN = "shutting-down"
# Status codes of a pixel request that is rejected before it is read completely. With other codes
# the request is not known to be a GET or POST of a pixel.
cdef frozenset _UNREAD_PIXEL = frozenset((413, 414, 431, 500))
cdef dict _REJECTIONS = {code: RequestError(503, reason) for code, reason in REJECTIONS.items()}


cdef class _SpoolSink(Sink):
    # Store an event in the spool. The collector sets the attributes before each event.
    cdef SpoolWriter writer
    cdef uint32_t source
    cdef int64_t received_ms
    cdef object waiter
    cdef Receipt receipt        # of the event that was taken

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        return self.writer.reserve(size)

    cdef int take(self, Py_ssize_t length) except -1:
        return self.writer.take(
            self.source, length, self.received_ms, self.waiter, &self.receipt
        )


cdef class Collector:

    def __init__(
        self,
        Sources sources not None,
        responses,
        Clock clock not None,
        *,
        trusted_proxies=(),
        str message_id_header not None="",
        always_200=False,
        str health_path not None="",
        rejections=None,
    ):
        self.sources = sources
        self.responses = responses
        self.clock = clock
        self.message_id_header = message_id_header.encode("ascii")
        self.rejections = rejections
        self.follow(trusted_proxies, always_200, health_path)
        self._events = EventWriter()
        self._sink = _SpoolSink()
        self._render_gif()
        self._log = structlog.get_logger("collect")

    def follow(self, trusted_proxies, bint always_200, str health_path not None):
        self.proxies = TrustedProxies(trusted_proxies)
        self.always_200 = always_200
        self._health_path = health_path.encode("ascii")

    def tick(self, now_s):
        # Called once per second, because the Date header changes.
        self.responses.tick(now_s)
        self._render_gif()
        if self.rejections is not None:
            self.rejections.flush(self.clock.monotonic_s())

    def untemplated_events(self):
        return self._events.untemplated_events()

    # --- requests ----------------------------------------------------------------------------

    cdef int respond(
        self, Request request, Method method, object waiter, Response* response
    ) except -1:
        # Fill in the response to a request; the caller has set `response.connection`.
        cdef Slice query
        cdef Route route = split_target(request.target, &query)
        response.is_head = method == Method.HEAD
        if route == Route.TRACK or route == Route.PAGE:
            response.kind = Kind.PIXEL
            response.status = 200
            response.origin = _echoed(request.origin)
            if method == Method.GET or method == Method.POST:
                return self._collect(request, route, query, waiter, response)
            if method == Method.OPTIONS:
                response.kind = Kind.PREFLIGHT
                response.status = 204
            elif method != Method.HEAD:
                response.status = 405
                response.reason = owned("method-not-allowed")
                self.sources.unknown.count_rejection("method-not-allowed")
                self._note(self.sources.unknown, "method-not-allowed", 405, request, None)
        elif route == Route.ROBOTS and (method == Method.HEAD or method == Method.GET):
            response.kind = Kind.ROBOTS
            response.status = 200
        else:
            self._respond_elsewhere(request, method, response)
        return 0

    cdef int _respond_elsewhere(
        self, Request request, Method method, Response* response
    ) except -1:
        # Fill in the response for a path that `split_target` does not know.
        if (
            self._health_path
            and (method == Method.HEAD or method == Method.GET)
            and is_path(request.target, slice_of(self._health_path))
        ):
            response.kind = Kind.HEALTH
            response.status = 200
            if self.fails_health_checks or not self.writer.is_ready:
                response.status = 503
                response.reason = owned(
                    SHUTTING_DOWN if self.fails_health_checks else self.writer.rejection
                )
                response.retry_after_s = RETRY_AFTER_S
            return 0
        response.kind = Kind.NOT_FOUND
        response.status = 404
        if is_below(request.target, slice_of(PIXEL_FOLDER)):
            # A page may have an image with a wrong path: respond with an invisible image.
            response.kind = Kind.PIXEL
            response.reason = owned(NOT_FOUND)
            response.origin = _echoed(request.origin)
            self._note(self.sources.unknown, NOT_FOUND, 404, request, None)
        return 0

    cdef int _collect(
        self,
        Request request,
        Route route,
        Slice query,
        object waiter,
        Response* response,
    ) except -1:
        cdef:
            ActiveSource source = self.sources.unknown
            ActiveKey key
            int64_t now_ms = self.clock.wall_ms()
            Receipt receipt
            str write_key = None
            str address = request.peer
            bint is_charged = False
        try:
            self._events.open_query(route, query)
            write_key = self._events.write_key()
            if not write_key:
                raise RequestError(400, "no-write-key", "writeKey is missing or empty")
            key = self.sources.find(write_key)
            if key is None:
                raise RequestError(401, "unknown-write-key", "no source has this write key")
            source = key.source
            key.check(now_ms)
            if source.budget is not None:
                source.take_budget(self.clock.monotonic_s())
                is_charged = True
            if request.is_proxied:
                address = self.proxies.client_of(address, request.forwarded_for, request.real_ip)
            receipt = self._store(request, source, address, now_ms, waiter)
        except Exception as error:
            if is_charged:
                source.budget.give_back()
            if isinstance(error, RequestError):
                self._note(source, error.reason, error.status, request, write_key)
                return self._reject(source, error, self.always_200, response)
            raise
        if receipt.rejection:
            if is_charged:
                source.budget.give_back()
            error = _REJECTIONS[receipt.rejection]
            self._note(source, error.reason, error.status, request, write_key)
            return self._reject(source, error, self.always_200, response)
        source.accepted += 1
        response.ticket = 0 if self.writer.acks_at_once else receipt.ticket
        return 0

    cdef Receipt _store(
        self, Request request, ActiveSource source, str address, int64_t now_ms, object waiter
    ) except *:
        cdef:
            _SpoolSink sink = <_SpoolSink>self._sink
            Additions additions
            list warnings
            bint has_invalid_id = False  # the proxy's message id is invalid
        additions.received_ms = now_ms
        additions.address.at = PyUnicode_AsUTF8AndSize(address, &additions.address.length)
        additions.user_agent = request.user_agent
        additions.referer = request.referer
        additions.languages = request.languages
        additions.message_id = stripped(request.message_id)
        if additions.message_id.length and not is_message_id(additions.message_id):
            additions.message_id.length = 0
            has_invalid_id = True
        sink.writer = self.writer
        sink.source = source.number
        sink.received_ms = now_ms
        sink.waiter = waiter
        try:
            warnings = self._events.write_into(sink, source.rules, &additions)
        finally:
            sink.waiter = None
        if not sink.receipt.rejection:
            if warnings:
                source.count_warnings(warnings)
            if has_invalid_id:
                source.count_warnings(_INVALID_MESSAGE_ID)
        return sink.receipt

    # --- rejections --------------------------------------------------------------------------

    cdef int reject_unread(
        self, Request request, Method method, object error, Response* response
    ) except -1:
        # Fill in the response to a request that cannot be read completely. It is the last response
        # of its connection.
        cdef Slice query
        cdef Route route = Route.NOT_FOUND
        if request.target.at != NULL:
            route = split_target(request.target, &query)
        response.kind = Kind.PIXEL
        response.connection = CLOSE
        response.is_head = method == Method.HEAD
        response.origin = _echoed(request.origin)
        if request.origin.at == NULL and request.is_in_head and request.head is not None:
            # Origin may not have arrived, but scripts can read this response only with CORS headers.
            response.origin = owned(_responses.ANY_ORIGIN)
        is_hidden = (
            self.always_200
            and error.status in _UNREAD_PIXEL
            and (method == Method.GET or method == Method.POST)
            and (route == Route.TRACK or route == Route.PAGE)
        )
        self._note(self.sources.unknown, error.reason, error.status, request, None)
        return self._reject(self.sources.unknown, error, is_hidden, response)

    cdef int reject_unstored(self, Response* response) except -1:
        # Change a response from 200 to 503, because its event could not be stored.
        response.status = 200 if self.always_200 else 503
        response.reason = owned(NOT_STORED)
        response.retry_after_s = RETRY_AFTER_S
        self.sources.unknown.count_rejection(NOT_STORED)
        self._note(self.sources.unknown, NOT_STORED, 503, None, None)
        return 0

    cdef int _reject(
        self, ActiveSource source, object error, bint is_hidden, Response* response
    ) except -1:
        response.ticket = 0
        response.status = 200 if is_hidden else error.status
        response.reason = owned(error.reason)
        if response.status == 429 or response.status == 503:
            response.retry_after_s = min(
                getattr(error, "retry_after_s", RETRY_AFTER_S), MAX_RETRY_AFTER_S
            )
        source.count_rejection(error.reason)
        return 0

    cdef int _note(
        self, ActiveSource source, str reason, int status, Request request, str write_key
    ) except -1:
        # Log a rejection unless its reason was logged recently. `request` and `write_key` may be
        # None.
        cdef str address = ""
        cdef bytes referrer = None
        if self.rejections is None or not self.rejections.is_due(
            reason, self.clock.monotonic_s()
        ):
            return 0
        if request is not None:
            address = request.peer
            referrer = copy_of(request.referer)
            if request.is_proxied:
                address = self.proxies.client_of(address, request.forwarded_for, request.real_ip)
        self.rejections.write(
            reason, status, source=source.name, address=address, referrer=referrer,
            write_key=write_key,
        )
        return 0

    # --- bytes -------------------------------------------------------------------------------

    cdef int _render_gif(self) except -1:
        self._gif = self.responses.pixel()
        self._gif_said = self.responses.pixel(connection=_responses.KEEP_SAID)
        return 0

    cdef bytes render(self, Response* response):
        # Return the bytes of a response when it is sent.
        if (
            response.kind == Kind.PIXEL
            and response.status == 200
            and response.connection != CLOSE
            and response.reason == NULL
            and response.origin == NULL
            and not response.is_head
        ):
            return self._gif if response.connection == KEEP else self._gif_said
        try:
            return self._render(response)
        except Exception as error:  # noqa: BLE001 - a bug must affect only this response
            return self._render_failed(as_request_error(error, self._log), response)

    cdef bytes _render(self, Response* response):
        origin = None if response.origin == NULL else <bytes>response.origin
        if response.kind == Kind.PIXEL:
            return self.responses.pixel(
                response.status,
                response.connection,
                reason="" if response.reason == NULL else <str>response.reason,
                retry_after_s=response.retry_after_s,
                origin=origin,
                is_head=response.is_head,
            )
        if response.kind == Kind.PREFLIGHT:
            return self.responses.preflight(response.connection, origin)
        if response.kind == Kind.ROBOTS:
            return self.responses.robots(response.connection, is_head=response.is_head)
        if response.kind == Kind.HEALTH:
            return self.responses.health(
                response.status,
                response.connection,
                reason="" if response.reason == NULL else <str>response.reason,
                retry_after_s=response.retry_after_s,
                is_head=response.is_head,
            )
        if response.kind == Kind.NOT_FOUND:
            return self.responses.not_found(response.connection, is_head=response.is_head)
        return CONTINUE

    cdef bytes _render_failed(self, object error, Response* response):
        cdef Response failed = response[0]
        cdef bint is_hidden = (
            self.always_200
            and response.kind == Kind.PIXEL
            and response.status == 200
            and not response.is_head
        )
        failed.kind = Kind.PIXEL
        self._reject(self.sources.unknown, error, is_hidden, &failed)
        try:
            return self._render(&failed)
        finally:
            Py_XDECREF(failed.reason)  # `response` owns everything else


cdef PyObject* _echoed(Slice origin) except? NULL:
    # Return the Origin as an owned reference, or NULL if it is missing or too long to be echoed.
    if origin.at == NULL or origin.length > MAX_ORIGIN_BYTES:
        return NULL
    return owned(PyBytes_FromStringAndSize(origin.at, origin.length))
