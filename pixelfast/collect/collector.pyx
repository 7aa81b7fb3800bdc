"""From a request to its answer: routes, methods, and the way of an event into the spool."""

from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.request cimport Request
from pixelfast.collect.sources cimport Source, Sources, WriteKey
from pixelfast.event.decoder cimport Decoder, Event
from pixelfast.event.encoder cimport encode_event
from pixelfast.event.target cimport Route, split_target
from pixelfast.spool.writer cimport SpoolWriter

from pixelfast.collect import answers as _answers
from pixelfast.errors import RequestError
from pixelfast.spool import REFUSALS

__all__ = ["Collector"]

cdef int KEEP = _answers.KEEP
cdef int CLOSE = _answers.CLOSE
# What may befall a pixel before it is read to its end. The others are no GET or POST of a pixel.
cdef frozenset _OF_A_PIXEL = frozenset((413, 414, 431, 500))
cdef dict _REFUSALS = {code: RequestError(503, reason) for code, reason in REFUSALS.items()}


cdef class Collector:

    def __init__(
        self,
        Sources sources not None,
        answers,
        Clock clock not None,
        *,
        trusted_proxies=(),
        always_200=False,
    ):
        self.sources = sources
        self.answers = answers
        self.clock = clock
        self.proxies = TrustedProxies(trusted_proxies)
        self.always_200 = always_200
        self._decoder = Decoder()
        self._gif = answers.pixel()

    def tick(self, now_s):
        # Once a second: the Date header.
        self.answers.tick(now_s)
        self._gif = self.answers.pixel()

    cdef bytes answer(
        self, Request request, bytes method, int connection, object waiter, Reply* reply
    ):
        cdef Py_ssize_t query = 0, query_end = 0
        cdef Route route = split_target(request.target, &query, &query_end)
        cdef bint is_head = method == b"HEAD"
        reply.ticket = 0
        if route == Route.TRACK or route == Route.PAGE:
            if method == b"GET" or method == b"POST":
                return self._collect(
                    request, route == Route.TRACK, query, query_end, connection, waiter, reply
                )
            if is_head:
                reply.status = 200
                return self.answers.pixel(200, connection, origin=request.origin, is_head=True)
            if method == b"OPTIONS":
                reply.status = 204
                return self.answers.preflight(connection, request.origin)
        elif route == Route.ROBOTS and (is_head or method == b"GET"):
            reply.status = 200
            return self.answers.robots(connection, is_head=is_head)
        else:
            reply.status = 404
            return self.answers.not_found(connection, is_head=is_head)
        reply.status = 405
        self.sources.nobody.count_refused("method")
        return self.answers.pixel(405, connection, reason="method", origin=request.origin)

    cdef bytes _collect(
        self,
        Request request,
        bint is_track,
        Py_ssize_t query,
        Py_ssize_t query_end,
        int connection,
        object waiter,
        Reply* reply,
    ):
        cdef:
            Source source = self.sources.nobody
            WriteKey key
            Event event
            int64_t now_ms = self.clock.wall_ms()
            int64_t ticket
            str text
            str address = request.peer
            str user_agent = None
            bytes encoded
        try:
            self._decoder.split_at(<const char*>request.target + query, query_end - query)
            text = self._decoder.write_key()
            if not text:
                raise RequestError(400, "no-write-key", "no writeKey")
            key = self.sources.find(text)
            if key is None:
                raise RequestError(401, "unknown-write-key", "no source has this write key")
            source = key.source
            key.check(now_ms)
            source.check_rate(self.clock.monotonic_s())
            event = self._decoder.decode(source.rules, is_track)
            if request.is_proxied:
                address = self.proxies.client_address(
                    address, request.forwarded_for, request.real_ip
                )
            if request.user_agent is not None:
                user_agent = request.user_agent.strip().decode("utf-8", "replace")
            encoded = encode_event(
                event,
                now_ms,
                address,
                user_agent,
                self._fill(request, source, address) if source.fills else None,
            )
        except RequestError as error:
            return self.refuse(source, error, connection, request.origin, reply)
        ticket = self.writer.append(source.number, encoded, now_ms, waiter)
        if ticket < 0:
            return self.refuse(source, _REFUSALS[-ticket], connection, request.origin, reply)
        source.accepted += 1
        source.take()
        if event.warnings:
            source.count_warnings(event.warnings)
        reply.status = 200
        reply.ticket = 0 if self.writer.acks_at_once else ticket
        if connection == KEEP and request.origin is None:
            return self._gif
        return self.answers.pixel(200, connection, origin=request.origin)

    cdef bytes refuse(
        self, Source source, object error, int connection, bytes origin, Reply* reply
    ):
        reply.status = 200 if self.always_200 else error.status
        reply.ticket = 0
        source.count_refused(error.reason)
        return self.answers.pixel(
            reply.status,
            connection,
            reason=error.reason,
            retry_after_s=getattr(error, "retry_after_s", 0),
            origin=origin,
        )

    cdef bytes give_up(self, Request request, bytes method, object error, Reply* reply):
        # The answer to a request that can't be read to its end: the last of its connection.
        cdef Py_ssize_t query = 0, query_end = 0
        cdef Route route = Route.NOT_FOUND
        if request.target is not None:
            route = split_target(request.target, &query, &query_end)
        reply.status = error.status
        reply.ticket = 0
        if self.always_200 and error.status in _OF_A_PIXEL and method in (b"GET", b"POST"):
            if route == Route.TRACK or route == Route.PAGE:
                reply.status = 200
        self.sources.nobody.count_refused(error.reason)
        return self.answers.pixel(
            reply.status,
            CLOSE,
            reason=error.reason,
            origin=request.origin,
            is_head=method == b"HEAD",
        )

    cdef dict _fill(self, Request request, Source source, str address):
        cdef dict fill = {}
        if source.fills_ip:
            fill["ip"] = address
        if source.fills_referer and request.referer is not None:
            fill["referer"] = request.referer.decode("utf-8", "replace")
        if source.fills_locale and request.languages is not None:
            first = request.languages.split(b",", 1)[0].split(b";", 1)[0].strip()
            fill["locale"] = first.decode("utf-8", "replace")
        return fill
