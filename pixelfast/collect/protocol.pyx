"""HTTP/1.1 on one connection: a scan takes plain GETs and `reader` everything else; this sends
responses in order, waits for acks, and bounds what a peer can make us hold.

The rules it keeps, each with its test:

1.  Pipelined requests all arrive within one read. Their responses go out in order, in one write,
    and acknowledgements may come in any order. A peer that does not read its responses is not read
    from.
2.  One connection holds at most `MAX_ANSWER_BYTES` of responses, one read and one head; all of them
    at most `max_memory`, over which those that have waited longest are closed. All is counted after
    each step, whether or not the connection may write.
3.  A client may go away while its event is being committed: the event stays, the answer is dropped.
4.  After the last answer the connection lingers: closing with unread bytes would make the kernel
    reset it, and the peer would lose the answer (RFC 9112 section 9.6).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from pixelfast.collect.acks cimport Waiter, acknowledge
from pixelfast.collect.collector cimport Collector
from pixelfast.collect.plain_get cimport scan_plain_get
from pixelfast.collect.reader cimport Reader, Reading
from pixelfast.collect.request cimport Method, Request, excuse
from pixelfast.collect.response cimport (
    Kind,
    Response,
    ResponseQueue,
    drop_responses,
    find_response,
    free_queue,
    free_response,
    new_response,
    push_response,
    ready_responses,
    response_at,
)
from pixelfast.collect.sockets cimport discard_input, write_out

import structlog

from pixelfast.collect import responses as _responses
from pixelfast.errors import RequestError

__all__ = ["Connection", "Connections"]

cdef enum:
    MAX_ANSWER_BYTES = 32768    # waiting on one connection; over it nothing more is read
    MAX_LINGERING_OVER_LIMIT = 16  # connections over `max_connections` that may
    MEMORY_FREED_AT_ONCE = 8    # this part of `max_memory`, so that the search for it pays

cdef int KEEP = _responses.KEEP
cdef int KEEP_SAID = _responses.KEEP_SAID
cdef int CLOSE = _responses.CLOSE
cdef double LINGER_S = 2.0


cdef class Connections:

    def __init__(
        self,
        Collector collector not None,
        *,
        max_connections=20_000,
        max_memory=2**28,
        header_timeout_s=10.0,
        idle_timeout_s=75.0,
    ):
        self.collector = collector
        self.open = set()
        self.answered = {}
        self._clock = collector.clock
        self._plain = Request()
        self._max_connections = max_connections
        self._max_memory = max_memory
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
        if self.evicted > self._evicted_told:
            count = self.evicted - self._evicted_told
            self._evicted_told = self.evicted
            self._log.warning(
                "connections_closed_for_memory", count=count, max_memory=self._max_memory
            )

    def on_stored(self, list waiters not None, int64_t first_ticket, bint is_stored):
        acknowledge(waiters, first_ticket, is_stored, self._log)

    def drain(self):
        cdef Connection connection
        self.is_draining = True
        for connection in list(self.open):
            if not connection._is_started and not connection._is_last:
                connection._is_last = True
                last = connection._responses.count - 1
                if last >= 0:
                    response_at(&connection._responses, last).connection = CLOSE
                connection._flush()

    cdef int count(self, int status) except -1:
        self.answered[status] = self.answered.get(status, 0) + 1
        return 0

    cdef int _make_room(self) except -1:
        # Close the connections that have held something longest.
        cdef int64_t goal = self._max_memory - self._max_memory // MEMORY_FREED_AT_ONCE
        cdef Connection connection
        cdef list holders = []
        for connection in self.open:
            if connection._held_bytes > 0:
                holders.append((connection._since_s, id(connection), connection))
        holders.sort()
        for _, _, connection in holders:
            if self.held_bytes <= goal:
                break
            self.evicted += 1
            transport = connection._transport
            connection._release()
            transport.abort()
        return 0


cdef class Connection(Waiter):

    def __init__(self, Connections connections not None):
        self._all = connections
        self._collector = connections.collector

    def __dealloc__(self):
        drop_responses(&self._responses, self._responses.count)
        free_queue(&self._responses)

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
            if len(connections.open) > connections._max_connections + MAX_LINGERING_OVER_LIMIT:
                # No descriptor to spare: it closes at once. What came with it is read, so that the
                # kernel does not reset it before the peer has the answer.
                discard_input(self._fd)
                self._has_eof = True
            self._fail(RequestError(503, "too-many-connections"))

    def connection_lost(self, error):
        self._release()

    def data_received(self, bytes data not None):
        if self._is_last or self._transport is None:
            return
        if self._unparsed is not None:
            data = self._unparsed + data
        self._consume(data)

    def eof_received(self):
        # The peer sends nothing more, and may wait for the answers to what it sent.
        if self._is_lingering or self._responses.count == 0:
            return False
        self._is_last = self._has_eof = True
        return True

    def pause_writing(self):
        self._is_write_paused = True
        self._since_s = self._all._clock.monotonic_s()

    def resume_writing(self):
        self._is_write_paused = False
        self._unsent_bytes = 0
        self._since_s = self._all._clock.monotonic_s()
        self._flush()

    # --- parsing -----------------------------------------------------------------------------

    cdef int _consume(self, bytes data) except -1:
        # `data` is everything that is not parsed yet.
        cdef Py_ssize_t start = 0, length = len(data), taken
        self._unparsed = None
        self._is_consuming = True
        try:
            while start < length and not self._is_last:
                taken = 0
                self._is_cut = self._is_choked()
                if not self._is_cut:
                    taken = self._take_plain(data, start) or self._take_any(data, start)
                if taken == 0:
                    self._unparsed = data[start:]
                    break
                start += taken
        finally:
            self._is_consuming = False
        return self._flush()

    cdef Py_ssize_t _take_plain(self, bytes data, Py_ssize_t start) except -1:
        # Answer the plain GET that stands there: its length, or 0 where it is the reader's.
        cdef:
            Connections connections = self._all
            Request request = connections._plain
            Py_ssize_t length
        if connections.is_draining or self._is_started and not self._reader.has_head(data, start):
            return 0
        request.reset()
        request.is_proxied = self._is_proxied
        length = scan_plain_get(PyBytes_AS_STRING(data) + start, len(data) - start, request)
        if length == 0:
            return 0
        if self._reader is not None:
            self._reader.next()  # it saw the start of this one, or line ends before it
            self._is_started = False
        request.peer = self._peer
        self._since_s = connections._clock.monotonic_s()
        self._answer(request, Method.GET, KEEP)
        return length

    cdef Py_ssize_t _take_any(self, bytes data, Py_ssize_t start) except -1:
        # The bytes that the reader took; 0 where they come again with more.
        cdef Reader reader = self._need_reader()
        cdef Py_ssize_t taken = reader.read(data, start)
        if reader.owes_continue:
            # Also if the body is here already (RFC 9110 section 10.1.1 allows both): this does not
            # depend on where TCP cuts.
            reader.owes_continue = False
            push_response(&self._responses, new_response(Kind.CONTINUE, 100, KEEP))
        if reader.reading == Reading.FAILED:
            self._give_up(reader.error, reader.request, reader.method)
        elif reader.reading == Reading.DONE:
            self._answer_read()
        elif reader.has_part() and not self._is_started:
            self._is_started = True
            self._since_s = self._all._clock.monotonic_s()
        return taken

    cdef Reader _need_reader(self):
        if self._reader is None:  # many connections never do: 1.5 KB each
            self._reader = Reader(self._peer, self._is_proxied, self._all._log)
        return self._reader

    cdef int _answer_read(self) except -1:
        cdef Reader reader = self._reader
        cdef int connection = KEEP
        if self._all.is_draining or reader.is_upgrade or not reader.keeps_alive:
            connection = CLOSE
            self._is_last = True
        elif reader.request.says_keep_alive:
            connection = KEEP_SAID
        self._answer(reader.request, reader.method, connection)
        reader.next()
        self._is_started = False
        self._since_s = self._all._clock.monotonic_s()
        return 0

    cdef int _answer(self, Request request, Method method, int connection) except -1:
        cdef Response response = new_response(Kind.PIXEL, 200, connection)
        try:
            self._collector.respond(request, method, self, &response)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is this request's only
            free_response(&response)
            return self._give_up(excuse(error, self._all._log), request, method)
        return self._push(response)

    cdef int _fail(self, object error) except -1:
        # Give up a request that is not whole, whatever is there of it.
        cdef Reader reader = self._need_reader()
        reader.fail(error, self._unparsed or reader.request.head or b"")
        self._give_up(error, reader.request, reader.method)
        return self._flush()

    cdef int _give_up(self, object error, Request request, Method method) except -1:
        # This request can't be read to its end, so none after it can be found.
        cdef Response response = new_response(Kind.PIXEL, 200, CLOSE)
        self._is_last = True
        self._collector.give_up(request, method, error, &response)
        self._drop_reader()
        return self._push(response)

    cdef int _drop_reader(self) except -1:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        return 0

    # --- answering ---------------------------------------------------------------------------

    cdef int _push(self, Response response) except -1:
        push_response(&self._responses, response)
        self._all.requests += 1
        return 0 if response.ticket else self._all.count(response.status)

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1:
        cdef Response* response = find_response(&self._responses, ticket)
        if response == NULL:
            return 0  # the client has gone
        if not is_stored:
            self._collector.reject_unstored(response)
        response.ticket = 0  # last: until here it says 200
        return self._all.count(response.status)

    cdef bytes _take(self, int count):
        # The bytes of the oldest responses, as they go out.
        cdef bytes data
        cdef list parts
        cdef int place
        if count == 1:
            data = self._collector.render(response_at(&self._responses, 0))
        else:
            parts = []
            for place in range(count):
                parts.append(self._collector.render(response_at(&self._responses, place)))
            data = b"".join(parts)
        drop_responses(&self._responses, count)
        return data

    cdef int _flush(self) except -1:
        # Writes the answers that are ready, up to the first that is not. Then counts what is held,
        # and reads on only if there is room; after the last request all input is discarded.
        cdef int ready
        if self._is_consuming or self._transport is None:
            return 0
        ready = 0 if self._is_write_paused else ready_responses(&self._responses)
        if ready:
            self._unsent_bytes = write_out(self._take(ready), self._transport, self._fd)
            if not self._is_write_paused:
                self._unsent_bytes = 0
        if self._is_last and self._responses.count == 0:
            self._finish()
        self._account()
        if self._transport is None:
            return 0  # closed for memory
        if self._is_choked() and not self._is_last:
            if not self._is_read_paused:
                self._is_read_paused = True
                self._transport.pause_reading()
            return 0
        if self._is_read_paused:
            self._is_read_paused = False
            self._transport.resume_reading()
        return self._consume(self._unparsed) if self._is_cut and not self._is_last else 0

    cdef bint _is_choked(self) noexcept:
        return self._is_write_paused or self._responses.size_bytes >= MAX_ANSWER_BYTES

    cdef int _account(self) except -1:
        # Count anew what this connection holds.
        cdef Py_ssize_t held = self._responses.size_bytes + self._unsent_bytes
        if self._unparsed is not None:
            held += PyBytes_GET_SIZE(self._unparsed)
        if self._reader is not None:
            held += self._reader.held_bytes()
        self._all.held_bytes += held - self._held_bytes
        self._held_bytes = held
        if self._all.held_bytes > self._all._max_memory:
            self._all._make_room()
        return 0

    cdef int _release(self) except -1:
        self._all.open.discard(self)
        self._all.held_bytes -= self._held_bytes
        self._all.dropped_answers += self._responses.count
        self._drop_reader()
        self._transport = self._unparsed = None
        self._fd = -1
        self._held_bytes = 0
        drop_responses(&self._responses, self._responses.count)
        return 0

    cdef int _finish(self) except -1:
        # Says that nothing more comes, and waits for the peer to say the same.
        if self._is_lingering:
            return 0
        self._is_lingering = True
        self._unparsed = None
        self._since_s = self._all._clock.monotonic_s()
        if self._has_eof:
            self._transport.close()
            return 0
        try:
            self._transport.write_eof()
        except OSError:
            self._abort()
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
        if self._is_write_paused or self._is_lingering:
            if waited_s > (connections._idle_timeout_s if self._is_write_paused else LINGER_S):
                self._transport.abort()
        elif self._responses.count:
            pass  # the writer sees to it that they are answered
        elif self._is_started:
            if waited_s > connections._header_timeout_s:
                self._fail(RequestError(408, "request-timeout"))
        elif waited_s > connections._idle_timeout_s:
            self._transport.close()
        return 0
