"""HTTP/1.1 on one connection: a scan takes plain GETs and httptools all else; this bounds, answers
in order, and waits for acks.

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

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from pixelfast.collect.acks cimport Waiter, acknowledge
from pixelfast.collect.answer_queue cimport AnswerQueue, write_out
from pixelfast.collect.collector cimport Collector, Method, Reply, method_of
from pixelfast.collect.plain_get cimport scan_plain_get
from pixelfast.collect.request cimport MAX_HEAD_BYTES, Request, excuse, is_unknown_method

import structlog
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from pixelfast.collect import answers as _answers
from pixelfast.collect.answers import closing, refused
from pixelfast.errors import RequestError

__all__ = ["Connection", "Connections"]

cdef enum:
    MAX_FRAMED_BODY_BYTES = 524288  # a body in chunks of a byte, and what is around it
    CHUNK_BYTES = 16384         # parsed at once: bounds the answers that a peer can make us hold
    MAX_PENDING = 1024          # answers on one connection

cdef int KEEP = _answers.KEEP
cdef int KEEP_SAID = _answers.KEEP_SAID
cdef int CLOSE = _answers.CLOSE
cdef double LINGER_S = 2.0
cdef str NOT_STORED = "not-stored"


cdef class Connections:

    def __init__(
        self,
        Collector collector not None,
        *,
        max_connections=20_000,
        header_timeout_s=10.0,
        idle_timeout_s=75.0,
    ):
        self.collector = collector
        self.open = set()
        self.answered = {}
        self._clock = collector.clock
        self._plain = Request()
        self._max_connections = max_connections
        self._header_timeout_s = header_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._log = structlog.get_logger("collect")

    def connect(self):
        return Connection(self)

    def sweep(self):
        cdef Connection connection
        cdef double now_s = self._clock.monotonic_s()
        for connection in list(self.open):
            connection._sweep(now_s)

    def on_stored(self, list waiters not None, int64_t first_ticket, bint is_stored):
        acknowledge(waiters, first_ticket, is_stored, self._log)

    def drain(self):
        cdef Connection connection
        self.is_draining = True
        for connection in list(self.open):
            if not connection._is_started and not connection._is_last:
                connection._is_last = True
                last = connection._answers.count - 1
                if last >= 0:
                    connection._answers.replace(last, closing(connection._answers.get(last)))
                connection._flush()

    cdef int count(self, int status) except -1:
        self.answered[status] = self.answered.get(status, 0) + 1
        return 0


cdef class Connection(Waiter):

    def __init__(self, Connections connections not None):
        self._all = connections
        self._collector = connections.collector
        self._answers = AnswerQueue()

    # --- what the transport calls ------------------------------------------------------------

    def connection_made(self, transport):
        cdef Connections connections = self._all
        peer = transport.get_extra_info("peername")
        plain = transport.get_extra_info("socket")
        self._transport = transport
        self._fd = -1 if plain is None else plain.fileno()
        # What the transport has to buffer, the peer does not read: `pause_writing` says so at once.
        transport.set_write_buffer_limits(0)
        self._since_s = connections._clock.monotonic_s()
        if isinstance(peer, tuple) and peer:
            self._peer = peer[0]
            self._is_proxied = self._collector.proxies.trusts(peer[0])
        else:
            # A Unix socket: who may open it is trusted. None: a TCP peer that has reset already.
            self._peer = ""
            self._is_proxied = peer is not None
        connections.open.add(self)
        if len(connections.open) > connections._max_connections:
            self._give_up_parsing(RequestError(503, "too-many-connections"))
            self._flush()

    def connection_lost(self, error):
        self._all.open.discard(self)
        self._all.dropped_answers += self._answers.count
        # The parser holds methods of this connection: each would keep the other alive.
        self._transport = self._parser = self._feed = self._backlog = None
        self._fd = -1
        self._answers.clear()

    def data_received(self, bytes data not None):
        if self._is_last:
            return
        if self._backlog is not None:
            self._backlog += data
        else:
            self._consume(data)

    def eof_received(self):
        # The peer sends nothing more, and may wait for the answers to what it sent.
        if self._is_lingering or self._answers.count == 0:
            return False
        self._is_last = self._has_eof = True
        return True

    def pause_writing(self):
        self._is_write_paused = True
        self._since_s = self._all._clock.monotonic_s()

    def resume_writing(self):
        self._is_write_paused = False
        self._since_s = self._all._clock.monotonic_s()
        self._flush()

    # --- parsing -----------------------------------------------------------------------------

    cdef int _consume(self, bytes data) except -1:
        cdef Py_ssize_t start = 0, length = len(data), plain
        self._is_consuming = True
        try:
            while start < length and not self._is_last:
                if self._is_choked():
                    self._backlog = data[start:]
                    if not self._is_read_paused:
                        self._is_read_paused = True
                        self._transport.pause_reading()
                    break
                plain = self._take_plain(data, start)
                if plain == 0:
                    self._feed_chunk(data[start : start + CHUNK_BYTES])
                start += plain or CHUNK_BYTES
        finally:
            self._is_consuming = False
        return self._flush()

    cdef Py_ssize_t _take_plain(self, bytes data, Py_ssize_t start) except -1:
        # Answer the plain GET that stands there: its length, or 0 where it is the parser's.
        cdef:
            Connections connections = self._all
            Request request = connections._plain
            Py_ssize_t length
            Reply reply
        if self._is_started or connections.is_draining:
            return 0
        request.reset()
        request.is_proxied = self._is_proxied
        length = scan_plain_get(
            PyBytes_AS_STRING(data) + start, PyBytes_GET_SIZE(data) - start, request
        )
        if length == 0:
            return 0
        request.peer = self._peer
        self._head_bytes = 0  # a line end in front of it went to the parser
        self._since_s = connections._clock.monotonic_s()
        try:
            answer = self._collector.answer(request, Method.GET, KEEP, self, &reply)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is this request's only
            self._give_up(excuse(error, connections._log), request, Method.GET)
            return length
        self._push(answer, reply.ticket, reply.status)
        return length

    cdef int _need_parser(self) except -1:
        # Many connections never do: 1 KB each.
        if self._parser is None:
            self._request = Request(self._peer, self._is_proxied)
            self._parser = HttpRequestParser(self)
            self._feed = self._parser.feed_data
        return 0

    cdef int _feed_chunk(self, bytes chunk) except -1:
        cdef int64_t before = self._all.requests
        cdef bint was_started = self._is_started
        self._need_parser()
        try:
            self._feed(chunk)
        except HttpParserCallbackError as error:
            return self._give_up_parsing(excuse(error.__context__ or error, self._all._log))
        except HttpParserUpgrade:
            # Answered as the plain request that it also is; what follows may be another protocol.
            self._is_last = True
            return 0
        except HttpParserError as error:
            if self._is_last:
                return 0  # after `Connection: close`: the request before it was fine
            if self._all.requests == before and is_unknown_method(error, chunk, was_started):
                return self._give_up_parsing(RequestError(405, "method"))
            return self._give_up_parsing(RequestError(400, "malformed-request"))
        if self._all.requests == before:
            self._head_bytes += len(chunk)
            if self._request.is_in_head:
                if self._head_bytes > MAX_HEAD_BYTES:
                    return self._give_up_parsing(RequestError(431, "headers-too-large"))
            elif self._head_bytes > MAX_HEAD_BYTES + MAX_FRAMED_BODY_BYTES:
                return self._give_up_parsing(RequestError(413, "body-too-large"))
        return 0

    def on_message_begin(self):
        self._is_started = True
        self._since_s = self._all._clock.monotonic_s()

    def on_url(self, bytes url):
        self._request.add_target(url)

    def on_header(self, bytes name, bytes value):
        self._request.add_header(name, value)

    def on_headers_complete(self):
        self._request.is_in_head = False
        if not self._request.has_host and self._parser.get_http_version() == "1.1":
            raise RequestError(400, "malformed-request", "no Host header")
        if self._request.expects_continue and self._parser.get_http_version() == "1.1":
            self._owes_continue = True
            self._say_continue()

    def on_body(self, bytes body):
        self._request.add_body(body)

    def on_message_complete(self):
        cdef int connection = KEEP
        cdef Reply reply
        cdef bytes answer
        parser = self._parser
        if self._is_last:
            return  # draining: the answer before said that nothing follows
        self._owes_continue = False
        if (
            self._all.is_draining
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            connection = CLOSE
            self._is_last = True
        elif self._request.says_keep_alive:
            connection = KEEP_SAID
        answer = self._collector.answer(
            self._request, method_of(parser.get_method()), connection, self, &reply
        )
        self._push(answer, reply.ticket, reply.status)
        self._request.reset()
        self._is_started = False
        self._head_bytes = 0
        self._since_s = self._all._clock.monotonic_s()

    cdef int _give_up_parsing(self, object error) except -1:
        cdef Method method = Method.OTHER
        self._need_parser()
        if self._request.target.at != NULL:
            method = method_of(self._parser.get_method())
        return self._give_up(error, self._request, method)

    cdef int _give_up(self, object error, Request request, Method method) except -1:
        # This request can't be read to its end, so none after it can be found.
        cdef Reply reply
        self._is_last = True
        answer = self._collector.give_up(request, method, error, &reply)
        return self._push(answer, 0, reply.status)

    # --- answering ---------------------------------------------------------------------------

    cdef int _push(self, bytes answer, int64_t ticket, int status) except -1:
        self._answers.push(answer, ticket)
        self._all.requests += 1
        return 0 if ticket else self._all.count(status)

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1:
        cdef int place = self._answers.find(ticket)
        cdef int status = 200
        if place < 0:
            return 0  # the client has gone
        if not is_stored:
            status = 200 if self._collector.always_200 else 503
            self._collector.sources.nobody.count_refused(NOT_STORED)
            self._answers.replace(place, refused(self._answers.get(place), status, NOT_STORED))
        self._answers.make_ready(place)  # last: until here it says 200
        return self._all.count(status)

    cdef int _flush(self) except -1:
        # Writes the answers that are ready, up to the first that is not.
        cdef int ready
        if self._is_consuming or self._is_write_paused or self._transport is None:
            return 0
        ready = self._answers.ready()
        if ready:
            write_out(self._answers.take(ready), self._transport, self._fd)
        if self._is_last and self._answers.count == 0:
            return self._finish()
        if self._owes_continue:
            self._say_continue()
        if self._is_read_paused and not self._is_choked():
            return self._resume()
        return 0

    cdef bint _is_choked(self) noexcept:
        return self._is_write_paused or self._answers.count >= MAX_PENDING

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
        self._since_s = self._all._clock.monotonic_s()
        if self._is_read_paused:
            self._is_read_paused = False
            self._transport.resume_reading()
        if self._has_eof:
            self._transport.close()
            return 0
        try:
            self._transport.write_eof()
        except OSError:
            self._abort()
        return 0

    cdef int _say_continue(self) except -1:
        if self._owes_continue and self._answers.count == 0 and not self._is_write_paused:
            self._owes_continue = False
            write_out(b"HTTP/1.1 100 Continue\r\n\r\n", self._transport, self._fd)
        return 0

    cdef int _abort(self) except -1:
        if self._transport is not None:
            self._transport.abort()
        return 0

    cdef int _sweep(self, double now_s) except -1:
        cdef double waited_s = now_s - self._since_s
        cdef Connections connections = self._all
        if self._transport is None:
            return 0
        if self._is_lingering:
            if waited_s > (connections._idle_timeout_s if self._is_write_paused else LINGER_S):
                self._transport.abort()
        elif self._is_write_paused:
            if waited_s > connections._idle_timeout_s:
                self._transport.abort()
        elif self._answers.count:
            pass  # the writer sees to it that they are answered
        elif self._is_started:
            if waited_s > connections._header_timeout_s:
                self._give_up_parsing(RequestError(408, "request-timeout"))
                self._flush()
        elif waited_s > connections._idle_timeout_s:
            self._transport.close()
        return 0
