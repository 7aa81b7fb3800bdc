"""HTTP/1.1 on one connection: httptools parses, this bounds, answers in order, and waits for acks.

The rules it keeps, each with its test:

1.  httptools has no limits and hands a target over in pieces: the target, the number of headers,
    their bytes and a body are counted here, and an endless header is cut off from outside.
2.  What we raise inside a callback comes back as HttpParserCallbackError, a subclass of the class
    that means a client's fault. It is told apart first: 500 if it was our own.
3.  Bytes after `Connection: close` make the parser raise although the request was fine: it is
    answered, then the connection closes.
4.  Pipelined requests all arrive within one read. Their answers go out in order, in one write, and
    acknowledgements may come in any order. A peer that does not read its answers is not read from.
5.  A client may go away while its event is being committed: the event stays, the answer is dropped.
6.  After the last answer the connection lingers: closing with unread bytes would make the kernel
    reset it, and the peer would lose the answer (RFC 9112 section 9.6).
"""

from libc.stdint cimport int64_t

from pixelfast.collect.clock cimport Clock
from pixelfast.collect.proxies cimport TrustedProxies
from pixelfast.collect.sources cimport Source, Sources, WriteKey
from pixelfast.event.decoder cimport Decoder, Event
from pixelfast.event.encoder cimport encode_event
from pixelfast.event.target cimport Route, split_target
from pixelfast.spool.writer cimport SpoolWriter

import structlog
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from pixelfast.collect import answers as _answers
from pixelfast.collect.answers import refused
from pixelfast.errors import RequestError
from pixelfast.spool import REFUSALS

__all__ = ["Collector", "Connection"]

cdef enum:
    MAX_TARGET_BYTES = 32768    # as RudderStack's gateway; nginx's default is 8 KB
    MAX_HEADER_BYTES = 32768
    MAX_HEADERS = 100
    MAX_BODY_BYTES = 65536
    MAX_HEAD_BYTES = 66560      # target, headers, and 1 KB for the rest of the request line
    CHUNK_BYTES = 16384         # parsed at once: bounds the answers that a peer can make us hold
    MAX_PENDING = 1024          # answers on one connection
    KEEP = 0
    KEEP_SAID = 1
    CLOSE = 2

cdef double LINGER_S = 2.0
cdef dict _REFUSALS = {code: RequestError(503, reason) for code, reason in REFUSALS.items()}
cdef str NOT_STORED = "not-stored"

assert (KEEP, KEEP_SAID, CLOSE) == (_answers.KEEP, _answers.KEEP_SAID, _answers.CLOSE)


cdef class Collector:

    def __init__(
        self,
        Sources sources not None,
        answers,
        Clock clock not None,
        *,
        trusted_proxies=(),
        always_200=False,
        max_connections=20_000,
        header_timeout_s=10.0,
        idle_timeout_s=75.0,
    ):
        self.sources = sources
        self.answers = answers
        self.clock = clock
        self.decoder = Decoder()
        self.proxies = TrustedProxies(trusted_proxies)
        self.always_200 = always_200
        self.max_connections = max_connections
        self.header_timeout_s = header_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.log = structlog.get_logger("collect")
        self.connections = set()
        self.answered = {}
        self.gif = answers.pixel()

    def connect(self):
        # The protocol factory.
        return Connection(self)

    def tick(self, now_s):
        # Once a second: the Date header, and the connections whose time is up.
        cdef Connection connection
        self.answers.tick(now_s)
        self.gif = self.answers.pixel()
        for connection in list(self.connections):
            connection._sweep(self.clock.monotonic_s())

    def on_stored(self, list waiters not None, int64_t first_ticket, bint is_stored):
        # The answers of one commit: first all become ready, then each connection writes once.
        cdef:
            Connection connection
            list ready = []
            Py_ssize_t place
        for place in range(len(waiters)):
            connection = <Connection>waiters[place]
            connection._on_acknowledged(first_ticket + place, is_stored)
            if not connection._is_dirty:
                connection._is_dirty = True
                ready.append(connection)
        for connection in ready:
            connection._is_dirty = False
            connection._flush()

    def drain(self):
        # Every answer from now on is its connection's last; those without a request close.
        cdef Connection connection
        self.is_draining = True
        for connection in list(self.connections):
            if not connection._is_started:
                connection._is_last = True
                connection._flush()

    cdef int count(self, int status) except -1:
        self.answered[status] = self.answered.get(status, 0) + 1
        return 0


cdef class Connection:

    def __init__(self, Collector shared not None):
        self._shared = shared
        self._answers = []
        self._tickets = []
        self._reset_request()

    # --- what the transport calls ------------------------------------------------------------

    def connection_made(self, transport):
        cdef Collector shared = self._shared
        peer = transport.get_extra_info("peername")
        self._transport = transport
        self._parser = HttpRequestParser(self)
        self._feed = self._parser.feed_data
        self._since_s = shared.clock.monotonic_s()
        if isinstance(peer, tuple) and peer:
            self._peer = peer[0]
            self._is_proxied = shared.proxies.trusts(self._peer)
        else:
            self._peer = ""  # a Unix socket: who may connect to it is trusted
            self._is_proxied = True
        shared.connections.add(self)
        if len(shared.connections) > shared.max_connections:
            self._give_up(RequestError(503, "too-many-connections"))
            self._flush()

    def connection_lost(self, error):
        self._shared.connections.discard(self)
        self._shared.dropped_answers += len(self._answers)
        # The parser holds this connection's methods: without this they would keep each other alive.
        self._transport = self._parser = self._feed = None
        self._backlog = None
        self._answers.clear()
        self._tickets.clear()

    def data_received(self, bytes data not None):
        if self._is_last:
            return
        if self._backlog is not None:
            self._backlog += data
            return
        self._consume(data)

    def eof_received(self):
        # The peer sends nothing more, and may wait for the answers to what it sent.
        if self._is_lingering or not self._answers:
            return False
        self._is_last = True
        return True

    def pause_writing(self):
        self._is_write_paused = True
        self._since_s = self._shared.clock.monotonic_s()

    def resume_writing(self):
        self._is_write_paused = False
        self._flush()

    # --- parsing -----------------------------------------------------------------------------

    cdef int _consume(self, bytes data) except -1:
        cdef Py_ssize_t start = 0, length = len(data)
        self._is_consuming = True
        try:
            while start < length and not self._is_last:
                if self._is_choked():
                    self._backlog = data[start:]
                    if not self._is_read_paused:
                        self._is_read_paused = True
                        self._transport.pause_reading()
                    break
                if start == 0 and length <= CHUNK_BYTES:
                    self._feed_chunk(data)
                else:
                    self._feed_chunk(data[start : start + CHUNK_BYTES])
                start += CHUNK_BYTES
        finally:
            self._is_consuming = False
        return self._flush()

    cdef int _feed_chunk(self, object chunk) except -1:
        cdef int64_t before = self._shared.requests
        try:
            self._feed(chunk)
        except HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, RequestError):
                return self._give_up(cause)
            self._shared.log.error("request_failed", exc_info=cause or error)
            return self._give_up(RequestError(500, "internal-error"))
        except HttpParserUpgrade:
            # Answered as the plain request that it also is; what follows may be another protocol.
            self._is_last = True
            return 0
        except HttpParserError:
            # After `Connection: close` the request before it was fine, and this is not one.
            return 0 if self._is_last else self._give_up(RequestError(400, "malformed-request"))
        if self._shared.requests == before:
            # Still the same request: its bytes so far, and since when.
            if not self._is_started:
                self._is_started = True
                self._since_s = self._shared.clock.monotonic_s()
            self._head_bytes += len(chunk)
            if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
                return self._give_up(RequestError(431, "headers-too-large"))
        elif self._url is not None and not self._is_started:
            self._is_started = True
            self._since_s = self._shared.clock.monotonic_s()
        return 0

    def on_url(self, bytes url):
        cdef Py_ssize_t length = len(url)
        if self._url is not None:
            length += len(self._url)
            self._url += url
        else:
            self._url = url
        if length > MAX_TARGET_BYTES:
            raise RequestError(414, "target-too-long")

    def on_header(self, bytes name, bytes value):
        cdef Py_ssize_t length = len(name)
        if not self._is_in_head:
            return  # a trailer: it comes too late to say who sent the request
        self._header_count += 1
        self._header_bytes += length + len(value) + 4
        if self._header_count > MAX_HEADERS:
            raise RequestError(431, "too-many-headers")
        if self._header_bytes > MAX_HEADER_BYTES:
            raise RequestError(431, "headers-too-large")
        if length == 10:
            if self._user_agent is None and name.lower() == b"user-agent":
                self._user_agent = value
            elif name.lower() == b"connection":
                self._says_keep_alive = value.lower() == b"keep-alive"
        elif length == 15:
            if self._is_proxied and name.lower() == b"x-forwarded-for":
                if self._forwarded_for is not None:
                    value = self._forwarded_for + b"," + value
                self._forwarded_for = value
            elif self._languages is None and name.lower() == b"accept-language":
                self._languages = value
        elif length == 9:
            if self._is_proxied and name.lower() == b"x-real-ip":
                self._real_ip = value
        elif length == 6:
            if name.lower() == b"origin":
                self._origin = value
            elif name.lower() == b"expect":
                self._expects_continue = value.lower() == b"100-continue"
        elif length == 7:
            if self._referer is None and name.lower() == b"referer":
                self._referer = value

    def on_headers_complete(self):
        self._is_in_head = False
        if self._expects_continue and not self._answers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, bytes body):
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise RequestError(413, "body-too-large")

    def on_message_complete(self):
        self._handle()
        self._reset_request()

    cdef int _reset_request(self) except -1:
        self._url = None
        self._user_agent = self._origin = self._referer = self._languages = None
        self._forwarded_for = self._real_ip = None
        self._is_in_head = True
        self._is_started = self._says_keep_alive = self._expects_continue = False
        self._head_bytes = self._header_bytes = self._body_bytes = 0
        self._header_count = 0
        return 0

    # --- answering ---------------------------------------------------------------------------

    cdef int _handle(self) except -1:
        cdef:
            Collector shared = self._shared
            Py_ssize_t query = 0, query_end = 0
            Route route = split_target(self._url, &query, &query_end)
            bytes method = self._parser.get_method()
            int connection = KEEP
        self._since_s = shared.clock.monotonic_s()
        if shared.is_draining or not self._parser.should_keep_alive() or self._parser.should_upgrade():
            connection = CLOSE
            self._is_last = True
        elif self._says_keep_alive:
            connection = KEEP_SAID
        answers = shared.answers
        if route == Route.NOT_FOUND:
            return self._push(answers.not_found(connection, is_head=method == b"HEAD"), 0, 404)
        if route == Route.ROBOTS and (method == b"GET" or method == b"HEAD"):
            return self._push(answers.robots(connection, is_head=method == b"HEAD"), 0, 200)
        if route != Route.ROBOTS:
            if method == b"GET" or method == b"POST":
                return self._collect(route == Route.TRACK, query, query_end, connection)
            if method == b"HEAD":
                head = answers.pixel(200, connection, origin=self._origin, is_head=True)
                return self._push(head, 0, 200)
            if method == b"OPTIONS":
                return self._push(answers.preflight(connection, self._origin), 0, 204)
        refusal = answers.pixel(405, connection, reason="method", origin=self._origin)
        return self._push(refusal, 0, 405)

    cdef int _collect(
        self, bint is_track, Py_ssize_t query, Py_ssize_t query_end, int connection
    ) except -1:
        cdef:
            Collector shared = self._shared
            Source source = shared.sources.nobody
            WriteKey key
            Event event
            int64_t now_ms = shared.clock.wall_ms()
            int64_t ticket
            str address = self._peer
            str user_agent = None
            str text
            bytes encoded
            bytes answer
        try:
            shared.decoder.split_slice(self._url, query, query_end)
            text = shared.decoder.write_key()
            if not text:
                raise RequestError(400, "no-write-key", "no writeKey")
            key = shared.sources.find(text)
            if key is None:
                raise RequestError(401, "unknown-write-key", "no source has this write key")
            source = key.source
            key.check(now_ms, self._since_s)
            event = shared.decoder.decode(source.rules, is_track)
            if self._is_proxied:
                address = shared.proxies.client_address(
                    address, self._forwarded_for, self._real_ip
                )
            if self._user_agent is not None:
                user_agent = self._user_agent.strip().decode("utf-8", "replace")
            encoded = encode_event(
                event,
                now_ms,
                address,
                user_agent,
                self._fill(source, address) if source.fills else None,
            )
        except RequestError as error:
            return self._refuse_pixel(source, error, connection)
        ticket = shared.writer.append(source.number, encoded, now_ms, self)
        if ticket < 0:
            return self._refuse_pixel(source, _REFUSALS[-ticket], connection)
        source.accepted += 1
        if event.warnings:
            source.count_warnings(event.warnings)
        if connection == KEEP and self._origin is None:
            answer = shared.gif
        else:
            answer = shared.answers.pixel(200, connection, origin=self._origin)
        return self._push(answer, 0 if shared.writer.acks_at_once else ticket, 200)

    cdef int _refuse_pixel(self, Source source, object error, int connection) except -1:
        cdef int status = 200 if self._shared.always_200 else error.status
        source.count_refused(error.reason)
        return self._push(
            self._shared.answers.pixel(
                status,
                connection,
                reason=error.reason,
                retry_after_s=getattr(error, "retry_after_s", 0),
                origin=self._origin,
            ),
            0,
            status,
        )

    cdef dict _fill(self, Source source, str address):
        cdef dict fill = {}
        if source.fills_ip:
            fill["ip"] = address
        if source.fills_referer and self._referer is not None:
            fill["referer"] = self._referer.decode("utf-8", "replace")
        if source.fills_locale and self._languages is not None:
            first = self._languages.split(b",", 1)[0].split(b";", 1)[0].strip()
            fill["locale"] = first.decode("utf-8", "replace")
        return fill

    cdef int _give_up(self, object error) except -1:
        # This request can't be read to its end, so none after it can be found.
        self._shared.sources.nobody.count_refused(error.reason)
        self._is_last = True
        answer = self._shared.answers.pixel(error.status, CLOSE, reason=error.reason)
        return self._push(answer, 0, error.status)

    cdef int _push(self, bytes answer, int64_t ticket, int status) except -1:
        self._answers.append(answer)
        self._tickets.append(ticket)
        self._shared.requests += 1
        return 0 if ticket else self._shared.count(status)

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1:
        cdef Py_ssize_t place
        cdef int status = 200
        for place in range(len(self._tickets)):
            if <int64_t>self._tickets[place] == ticket:
                break
        else:
            return 0  # the client has gone
        self._tickets[place] = 0
        if not is_stored:
            status = 200 if self._shared.always_200 else 503
            self._shared.sources.nobody.count_refused(NOT_STORED)
            self._answers[place] = refused(self._answers[place], status, NOT_STORED)
        return self._shared.count(status)

    cdef int _flush(self) except -1:
        # Writes the answers that are ready, up to the first that is not.
        cdef Py_ssize_t ready = 0
        cdef Py_ssize_t count = len(self._answers)
        if self._is_consuming or self._is_write_paused or self._transport is None:
            return 0
        while ready < count and self._tickets[ready] == 0:
            ready += 1
        if ready == 1:
            self._transport.write(self._answers[0])
            del self._answers[0]
            del self._tickets[0]
        elif ready > 1:
            self._transport.write(b"".join(self._answers[:ready]))
            del self._answers[:ready]
            del self._tickets[:ready]
        if self._is_last and ready == count:
            return self._finish()
        if self._is_read_paused and not self._is_choked():
            return self._resume()
        return 0

    cdef bint _is_choked(self) noexcept:
        return self._is_write_paused or len(self._answers) >= MAX_PENDING

    cdef int _resume(self) except -1:
        cdef bytes data = self._backlog
        self._backlog = None
        self._is_read_paused = False
        self._transport.resume_reading()
        return 0 if data is None else self._consume(data)

    cdef int _finish(self) except -1:
        # Says that nothing more comes, and waits for the peer to say the same.
        if self._is_lingering:
            return 0
        self._is_lingering = True
        self._since_s = self._shared.clock.monotonic_s()
        if self._is_read_paused:
            self._is_read_paused = False
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        return 0

    cdef int _sweep(self, double now_s) except -1:
        cdef double waited_s = now_s - self._since_s
        cdef Collector shared = self._shared
        if self._transport is None:
            return 0
        if self._is_lingering:
            if waited_s > LINGER_S:
                self._transport.abort()
        elif self._is_write_paused:
            if waited_s > shared.idle_timeout_s:
                self._transport.abort()
        elif self._answers:
            pass  # the writer sees to it that they are answered
        elif self._is_started:
            if waited_s > shared.header_timeout_s:
                self._give_up(RequestError(408, "request-timeout"))
                self._flush()
        elif waited_s > shared.idle_timeout_s:
            self._transport.close()
        return 0
