"""From a request to its answer: routes, methods, and the way of an event into the spool."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.request cimport Method, Request, copy_of
from pixelfast.collect.sources cimport Source, Sources, WriteKey
from pixelfast.event.decoder cimport Decoder, Event
from pixelfast.event.encoder cimport encode_event, template_for
from pixelfast.event.query cimport Slice
from pixelfast.event.stamps cimport milliseconds_text, write_message_id
from pixelfast.event.template cimport Additions, Template
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
        self, Request request, Method method, int connection, object waiter, Reply* reply
    ):
        cdef Slice query
        cdef Route route = split_target(request.target, &query)
        reply.ticket = 0
        if route == Route.TRACK or route == Route.PAGE:
            if method == Method.GET or method == Method.POST:
                return self._collect(
                    request, route == Route.TRACK, query, connection, waiter, reply
                )
            if method == Method.HEAD:
                reply.status = 200
                return self.answers.pixel(
                    200, connection, origin=copy_of(request.origin), is_head=True
                )
            if method == Method.OPTIONS:
                reply.status = 204
                return self.answers.preflight(connection, copy_of(request.origin))
        elif route == Route.ROBOTS and (method == Method.HEAD or method == Method.GET):
            reply.status = 200
            return self.answers.robots(connection, is_head=method == Method.HEAD)
        else:
            reply.status = 404
            return self.answers.not_found(connection, is_head=method == Method.HEAD)
        reply.status = 405
        self.sources.nobody.count_refused("method")
        return self.answers.pixel(
            405, connection, reason="method", origin=copy_of(request.origin)
        )

    cdef bytes _collect(
        self,
        Request request,
        bint is_track,
        Slice query,
        int connection,
        object waiter,
        Reply* reply,
    ):
        cdef:
            Source source = self.sources.nobody
            WriteKey key
            int64_t now_ms = self.clock.wall_ms()
            int64_t ticket
            str text
            str address = request.peer
        try:
            self._decoder.split_at(query.at, query.length)
            text = self._decoder.write_key()
            if not text:
                raise RequestError(400, "no-write-key", "no writeKey")
            key = self.sources.find(text)
            if key is None:
                raise RequestError(401, "unknown-write-key", "no source has this write key")
            source = key.source
            key.check(now_ms)
            source.check_rate(self.clock.monotonic_s())
            if request.is_proxied:
                address = self.proxies.client_of(address, request.forwarded_for, request.real_ip)
            ticket = self._store(request, is_track, source, address, now_ms, waiter)
        except RequestError as error:
            return self.refuse(source, error, connection, request.origin, reply)
        if ticket < 0:
            return self.refuse(source, _REFUSALS[-ticket], connection, request.origin, reply)
        source.accepted += 1
        source.take()
        reply.status = 200
        reply.ticket = 0 if self.writer.acks_at_once else ticket
        if connection == KEEP and request.origin.at == NULL:
            return self._gif
        return self.answers.pixel(200, connection, origin=copy_of(request.origin))

    cdef int64_t _store(
        self,
        Request request,
        bint is_track,
        Source source,
        str address,
        int64_t now_ms,
        object waiter,
    ) except -99:
        # The event's ticket, or a Refusal, negated.
        cdef:
            Additions additions
            Slice agent = _stripped(request.user_agent)
            Template template = None
            Event event
            bytes encoded
            list warnings
            Py_ssize_t length = -1
            int64_t ticket
        if not source.fills:
            template = template_for(self._decoder, source.rules, is_track, agent.length > 0)
        if template is not None:  # straight into the spool's buffer
            additions.user_agent = agent
            additions.address.at = PyUnicode_AsUTF8AndSize(address, &additions.address.length)
            additions.received = milliseconds_text(now_ms)
            write_message_id(additions.message_id, now_ms)
            length = template.fill(
                self.writer.reserve(template.most_bytes(self._decoder._query.length, &additions)),
                self._decoder._query,
                &additions,
            )
        if length >= 0:
            warnings = template.warnings
            ticket = self.writer.take(source.number, length, now_ms, waiter)
        else:
            event = self._decoder.decode(source.rules, is_track)
            encoded = encode_event(
                event,
                now_ms,
                address,
                PyUnicode_DecodeUTF8(agent.at, agent.length, "replace") if agent.length else None,
                self._fill(request, source, address) if source.fills else None,
            )
            warnings = event.warnings
            ticket = self.writer.append(source.number, encoded, now_ms, waiter)
        if ticket > 0 and warnings:
            source.count_warnings(warnings)
        return ticket

    cdef bytes refuse(
        self, Source source, object error, int connection, Slice origin, Reply* reply
    ):
        reply.status = 200 if self.always_200 else error.status
        reply.ticket = 0
        source.count_refused(error.reason)
        return self.answers.pixel(
            reply.status,
            connection,
            reason=error.reason,
            retry_after_s=getattr(error, "retry_after_s", 0),
            origin=copy_of(origin),
        )

    cdef bytes give_up(self, Request request, Method method, object error, Reply* reply):
        # The answer to a request that can't be read to its end: the last of its connection.
        cdef Slice query
        cdef Route route = Route.NOT_FOUND
        if request.target.at != NULL:
            route = split_target(request.target, &query)
        reply.status = error.status
        reply.ticket = 0
        if self.always_200 and error.status in _OF_A_PIXEL:
            if method == Method.GET or method == Method.POST:
                if route == Route.TRACK or route == Route.PAGE:
                    reply.status = 200
        self.sources.nobody.count_refused(error.reason)
        return self.answers.pixel(
            reply.status,
            CLOSE,
            reason=error.reason,
            origin=copy_of(request.origin),
            is_head=method == Method.HEAD,
        )

    cdef dict _fill(self, Request request, Source source, str address):
        cdef dict fill = {}
        if source.fills_ip:
            fill["ip"] = address
        if source.fills_referer and request.referer.at != NULL:
            fill["referer"] = copy_of(request.referer).decode("utf-8", "replace")
        if source.fills_locale and request.languages.at != NULL:
            first = copy_of(request.languages).split(b",", 1)[0].split(b";", 1)[0].strip()
            fill["locale"] = first.decode("utf-8", "replace")
        return fill


cdef Slice _stripped(Slice text):
    # Without the white space around it, as bytes.strip has it.
    while text.length and text.at[0] in b" \t\n\r\v\f":
        text.at += 1
        text.length -= 1
    while text.length and text.at[text.length - 1] in b" \t\n\r\v\f":
        text.length -= 1
    return text
