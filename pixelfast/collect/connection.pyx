"""Speak HTTP/1.1 on one connection: states, responses in order, and memory limits.

A connection is in one of these states; `_enter` raises AssertionError for any other transition.

    state        next state   when
    IDLE         HEAD         a part of a request's head arrived
                 BODY         a complete head arrived, but only a part of the body
                 LAST         the last request was read or rejected, or draining began
                 HALF_CLOSED  input has ended: the peer sent FIN, or descriptors ran out
    HEAD         IDLE         the request was read
                 BODY         the head is complete
                 LAST         the last request was read or rejected
                 HALF_CLOSED  the peer sent FIN and waits for responses
    BODY         IDLE         the request was read
                 LAST         the last request was read or rejected
                 HALF_CLOSED  the peer sent FIN and waits for responses
    LAST         HALF_CLOSED  the peer sent FIN
                 LINGERING    the last response and FIN were written
    HALF_CLOSED  LINGERING    the last response was written; the transport closes
    any          CLOSED       the transport was closed or aborted

A complete request that arrives in one read leaves the state IDLE. Each rule has a test:

1.  Pipelined requests may all arrive in one read. Their responses are sent in order and in one
    write, although acknowledgements may arrive in any order. A connection whose peer does not read
    its responses stops reading.
2.  One connection holds at most `MAX_RESPONSE_BYTES` of responses, one read and one head. All
    connections together hold at most `max_memory`, beyond which those that have waited longest are
    closed. Memory is counted after each step.
3.  If a client leaves while its event is being committed, the event is kept, but not the response.
4.  After the last response the connection lingers: if it closed with unread bytes, the kernel would
    reset it and the peer would lose the response (RFC 9112 section 9.6).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from pixelfast.collect.collector cimport Collector
from pixelfast.collect.flow_control cimport (
    discard_input, is_choked, pause_reading, resume_reading, write,
)
from pixelfast.collect.proxies cimport address_of
from pixelfast.collect.reader cimport Method, Reader, Reading, Request, as_request_error
from pixelfast.collect.response cimport (
    Kind, Response, ResponseQueue, drop_responses, find_response, free_queue, free_response,
    new_response, push_response, ready_responses, response_at,
)
from pixelfast.collect.scan cimport scan_plain_get
from pixelfast.spool.histogram cimport add_duration, figures_of

import structlog

from pixelfast.collect import responses as _responses
from pixelfast.errors import RequestError

__all__ = ["MAX_OVER_LIMIT", "Connection", "Connections", "State", "check_transition"]

cdef enum:
    MEMORY_FREED_AT_ONCE = 8    # an eighth of `max_memory`, to make the search worthwhile
    MEASURED_ONE_IN = 16        # requests, because a duration costs a read of the clock

cdef int KEEP = _responses.KEEP, KEEP_SAID = _responses.KEEP_SAID, CLOSE = _responses.CLOSE
cdef double LINGER_S = 2.0
cdef double FRESH_S = 1.0           # wait for the first request of a connection while draining


cpdef check_transition(State old, State new):
    if not (states_after(old) >> new & 1 or new == State.CLOSED != old):
        raise AssertionError(f"no transition from {State(old).name} to {State(new).name}")


cdef class Connections:

    def __init__(self, Collector collector not None, **limits):
        self.collector = collector
        self.open = set()
        self.handshakes = 0
        self.responses = {}
        self._clock = collector.clock
        self._plain = Request("", False, collector.message_id_header)
        self._log = structlog.get_logger("collect")
        self.follow(**limits)

    def follow(self, *, max_connections=20_000, max_memory=2**28, header_timeout_s=10.0,
               idle_timeout_s=75.0):
        cdef Connection connection
        self.max_connections = max_connections
        self._max_memory = max_memory
        self._header_timeout_s = header_timeout_s
        self._idle_timeout_s = idle_timeout_s
        for connection in self.open:
            connection._is_proxied = self.collector.proxies.trusts_peer(
                connection._transport.get_extra_info("peername")
            )
            if connection._reader is not None:
                connection._reader.request.is_proxied = connection._is_proxied

    def connect(self):
        return Connection(self)

    def sweep(self):
        cdef Connection connection
        cdef double now_s = self._clock.monotonic_s()
        for connection in list(self.open):
            connection._sweep(now_s)
        if self.evicted > self._evicted_logged:
            count = self.evicted - self._evicted_logged
            self._evicted_logged = self.evicted
            self._log.warning(
                "connections_evicted", count=count, max_memory=self._max_memory
            )

    def drain(self):
        cdef Connection connection
        self.is_draining = True
        for connection in list(self.open):
            connection._drain()

    def on_stored(self, list waiters not None, int64_t first_ticket, bint is_stored):
        # Mark all responses as ready before any connection writes, so that each writes once. The
        # requests of one read are neighbours in `waiters`.
        cdef Connection connection, last = None
        cdef int64_t ticket = first_ticket
        for connection in waiters:
            try:
                connection._on_acknowledged(ticket, is_stored)
            except Exception:  # noqa: BLE001 - must not affect other connections
                self._log.exception("response_failed")
                connection._abort()
            ticket += 1
        for connection in waiters:
            if connection is last:
                continue
            last = connection
            try:
                connection._flush()
            except Exception:  # noqa: BLE001 - must not affect other connections
                self._log.exception("response_failed")
                connection._abort()

    cdef int _count(self, int status) except -1:
        self.responses[status] = self.responses.get(status, 0) + 1
        return 0

    def durations(self):
        return {f"{digit}xx": figures_of(&self._durations[digit], 1e-9) for digit in (2, 4, 5)}

    cdef void _measure(self, const Response* response) noexcept:
        cdef int64_t duration_ns = self._clock.monotonic_ns() - response.read_ns
        add_duration(&self._durations[response.status // 100], duration_ns)

    cdef int _free_memory(self) except -1:
        # Close the connections that have held memory for the longest time.
        cdef int64_t goal = self._max_memory - self._max_memory // MEMORY_FREED_AT_ONCE
        cdef Connection connection
        cdef list holders = []
        for connection in self.open:
            if connection._flow.held_bytes > 0:
                holders.append((connection._since_s, id(connection), connection))
        holders.sort()
        for _, _, connection in holders:
            if self.held_bytes <= goal:
                break
            self.evicted += 1
            connection._abort()
        return 0


cdef class Connection:

    def __init__(self, Connections connections not None):
        self._all = connections
        self._collector = connections.collector

    def __dealloc__(self):
        free_queue(&self._responses)

    @property
    def state(self):
        return State(self._state)

    cdef int _enter(self, State state) except -1:
        check_transition(self._state, state)
        self._state = state
        return 0

    # --- called by the transport -------------------------------------------------------------

    def connection_made(self, transport):
        cdef Connections connections = self._all
        cdef Py_ssize_t surplus
        peer = transport.get_extra_info("peername")
        plain = transport.get_extra_info("socket")
        self._transport = transport
        self._flow.fd = -1 if plain is None else plain.fileno()
        # `pause_writing` comes with the first byte that the transport buffers.
        transport.set_write_buffer_limits(0)
        self._since_s = connections._clock.monotonic_s()
        self._peer = address_of(peer)
        self._is_proxied = self._collector.proxies.trusts_peer(peer)
        self._is_fresh = True
        connections.open.add(self)
        connections.accepted += 1
        surplus = len(connections.open) + connections.handshakes - connections.max_connections
        if surplus > 0:
            if surplus > MAX_OVER_LIMIT:
                # Close immediately to save descriptors. Read the first input, so that the kernel
                # does not reset the connection before the peer has the response.
                discard_input(self._flow.fd)
                self._enter(State.HALF_CLOSED)
            self._reject(RequestError(503, "too-many-connections"))

    def connection_lost(self, exc):
        if self._state != State.CLOSED:
            self._release()

    def data_received(self, bytes data not None):
        if self._state >= State.LAST:
            return
        if self._unparsed is not None:
            data = self._unparsed + data
        self._parse(data)
        self._flush()

    def eof_received(self):
        # The peer has sent its last request, and may wait for responses.
        if self._state >= State.LINGERING or self._responses.count == 0:
            return False
        if self._state != State.HALF_CLOSED:
            self._enter(State.HALF_CLOSED)
        return True

    def pause_writing(self):
        self._flow.is_write_paused = True
        self._since_s = self._all._clock.monotonic_s()

    def resume_writing(self):
        self._flow.is_write_paused = False
        self._flow.unsent_bytes = 0
        self._since_s = self._all._clock.monotonic_s()
        self._flush()

    def hold(self, Py_ssize_t sealed_bytes):
        self._flow.sealed_bytes = sealed_bytes
        self._account()

    # --- requests ----------------------------------------------------------------------------

    cdef int _parse(self, bytes data) except -1:
        # Read the requests in `data`, which is all input not parsed so far.
        cdef Py_ssize_t start = 0, length = len(data), taken
        self._unparsed = None
        self._flow.has_backlog = False
        while start < length and self._state < State.LAST:
            taken = 0
            self._flow.has_backlog = is_choked(&self._flow, self._responses.size_bytes)
            if not self._flow.has_backlog:
                taken = self._take_plain(data, start) or self._take_any(data, start)
            if taken == 0:
                self._unparsed = data[start:]
                break
            start += taken
        return 0

    cdef Py_ssize_t _take_plain(self, bytes data, Py_ssize_t start) except -1:
        # Respond to a plain GET at `start` and return its length; 0 if the reader must read it.
        cdef:
            Connections connections = self._all
            Request request = connections._plain
            Py_ssize_t length
        if connections.is_draining or self._state == State.BODY:
            return 0
        if self._state == State.HEAD and not self._reader.has_head(data, start):
            return 0
        request.reset()
        request.is_proxied = self._is_proxied
        length = scan_plain_get(PyBytes_AS_STRING(data) + start, len(data) - start, request)
        if length == 0:
            return 0
        if self._reader is not None:
            self._reader.next()  # it has seen the start of this request, or line ends before it
            if self._state == State.HEAD:
                self._enter(State.IDLE)
        request.peer = self._peer
        self._since_s = connections._clock.monotonic_s()
        self._respond(request, Method.GET, KEEP_SAID if request.says_keep_alive else KEEP)
        return length

    cdef Py_ssize_t _take_any(self, bytes data, Py_ssize_t start) except -1:
        # Return the number of bytes that the reader consumed; 0 if it needs them again with more.
        cdef Reader reader = self._need_reader()
        cdef Py_ssize_t taken = reader.read(data, start)
        cdef State state
        if reader.owes_continue:
            # Even if the body has arrived (RFC 9110 section 10.1.1 allows both), so that responses
            # do not depend on how TCP splits the input.
            reader.owes_continue = False
            push_response(&self._responses, new_response(Kind.CONTINUE, 100, KEEP))
        if reader.reading == Reading.FAILED:
            self._reject_unread(reader.error, reader.request, reader.method)
        elif reader.reading == Reading.DONE:
            self._respond_to_read()
        elif reader.has_part():
            state = State.BODY if reader.reading == Reading.IN_BODY else State.HEAD
            if self._state == State.IDLE:
                self._since_s = self._all._clock.monotonic_s()
            if self._state != state:
                self._enter(state)
        return taken

    cdef Reader _need_reader(self):
        if self._reader is None:  # it takes 1.5 KB, and many connections never need one
            self._reader = Reader(
                self._peer, self._is_proxied, self._collector.message_id_header, self._all._log
            )
        return self._reader

    cdef int _respond_to_read(self) except -1:
        cdef Reader reader = self._reader
        cdef State state = State.IDLE
        cdef int connection = KEEP
        if self._all.is_draining or reader.is_upgrade or not reader.keeps_alive:
            state = State.LAST
            connection = CLOSE
        elif reader.request.says_keep_alive:
            connection = KEEP_SAID
        self._respond(reader.request, reader.method, connection)
        reader.next()
        self._since_s = self._all._clock.monotonic_s()
        if self._state < State.LAST and self._state != state:
            self._enter(state)
        return 0

    cdef int _respond(self, Request request, Method method, int connection) except -1:
        cdef Response response = new_response(Kind.PIXEL, 200, connection)
        if self._all.requests % MEASURED_ONE_IN == 0:
            response.read_ns = self._all._clock.monotonic_ns()
        try:
            self._collector.respond(request, method, self, &response)
        except Exception as error:  # noqa: BLE001 - a bug must affect only this request
            free_response(&response)
            return self._reject_unread(as_request_error(error, self._all._log), request, method)
        return self._push(response)

    cdef int _reject(self, object error) except -1:
        # Reject a request that is incomplete, or that was not even read.
        cdef Reader reader = self._need_reader()
        reader.fail(error, self._unparsed or reader.request.head or b"")
        self._reject_unread(error, reader.request, reader.method)
        return self._flush()

    cdef int _reject_unread(self, object error, Request request, Method method) except -1:
        # Reject a request that cannot be read completely. The requests after it cannot be found.
        cdef Response response = new_response(Kind.PIXEL, 200, CLOSE)
        if self._state < State.LAST:
            self._enter(State.LAST)
        self._collector.reject_unread(request, method, error, &response)
        self._drop_reader()
        return self._push(response)

    cdef int _drop_reader(self) except -1:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        return 0

    # --- responses ---------------------------------------------------------------------------

    cdef int _push(self, Response response) except -1:
        push_response(&self._responses, response)
        self._is_fresh = False
        self._all.requests += 1
        return 0 if response.ticket else self._all._count(response.status)

    cdef int _on_acknowledged(self, int64_t ticket, bint is_stored) except -1:
        cdef Response* response = find_response(&self._responses, ticket)
        if response == NULL:
            return 0  # the client has left
        if not is_stored:
            self._collector.reject_unstored(response)
        response.ticket = 0  # set last: `reject_unstored` expects a response that waits
        return self._all._count(response.status)

    cdef int _flush(self) except -1:
        # Write the responses up to the first that is not ready, count memory, and read on if the
        # limits allow it. After the last request all input is discarded.
        cdef int ready
        while self._state != State.CLOSED:
            ready = 0 if self._flow.is_write_paused else ready_responses(&self._responses)
            if ready:
                write(&self._flow, self._transport, self._take(ready))
            if self._responses.count == 0 and State.LAST <= self._state < State.LINGERING:
                self._linger()
            self._account()
            if self._state == State.CLOSED:
                break  # closed to free memory
            if self._state < State.LAST and is_choked(&self._flow, self._responses.size_bytes):
                pause_reading(&self._flow, self._transport)
                break
            resume_reading(&self._flow, self._transport)
            if self._state >= State.LAST or not self._flow.has_backlog:
                break
            self._parse(self._unparsed)
        return 0

    cdef bytes _take(self, int count):
        # Remove the oldest responses from the queue and return their bytes.
        cdef Response* response
        cdef bytes data
        cdef list parts = []
        cdef int place
        for place in range(count):
            response = response_at(&self._responses, place)
            if response.read_ns:
                self._all._measure(response)
            data = self._collector.render(response)
            if count > 1:
                parts.append(data)
        drop_responses(&self._responses, count)
        return data if count == 1 else b"".join(parts)

    cdef int _account(self) except -1:
        # Update the memory held by this connection.
        cdef Py_ssize_t held = self._responses.size_bytes + self._flow.unsent_bytes
        held += self._flow.sealed_bytes
        if self._unparsed is not None:
            held += PyBytes_GET_SIZE(self._unparsed)
        if self._reader is not None:
            held += self._reader.held_bytes()
        self._all.held_bytes += held - self._flow.held_bytes
        self._flow.held_bytes = held
        if self._all.held_bytes > self._all._max_memory:
            self._all._free_memory()
        return 0

    # --- closing -----------------------------------------------------------------------------

    cdef int _drain(self) except -1:
        # Announce the end with the last response owed. A fresh connection may be about to get its
        # first request, which proxies do not repeat on another connection.
        if self._state != State.IDLE or self._is_fresh:
            return 0
        self._enter(State.LAST)
        if self._responses.count:
            response_at(&self._responses, self._responses.count - 1).connection = CLOSE
        return self._flush()

    cdef int _sweep(self, double now_s) except -1:
        cdef Connections connections = self._all
        cdef double waited_s = now_s - self._since_s
        if self._state == State.CLOSED:
            return 0
        if self._flow.is_write_paused:
            if waited_s > connections._idle_timeout_s:
                self._abort()
        elif self._state == State.LINGERING:
            if waited_s > LINGER_S:
                self._abort()
        elif self._responses.count:
            pass  # the spool writer limits this wait
        elif self._state == State.IDLE:
            if waited_s > (FRESH_S if connections.is_draining else connections._idle_timeout_s):
                self._transport.close()
        elif waited_s > connections._header_timeout_s:
            self._reject(RequestError(408, "request-timeout"))
        return 0

    cdef int _linger(self) except -1:
        # Send FIN and wait for the peer's.
        cdef bint has_peer_ended = self._state == State.HALF_CLOSED
        self._enter(State.LINGERING)
        self._unparsed = None
        self._since_s = self._all._clock.monotonic_s()
        if has_peer_ended:
            self._transport.close()
            return 0
        try:
            self._transport.write_eof()
        except OSError:
            self._abort()
        return 0

    cdef int _abort(self) except -1:
        transport = self._transport
        if self._state != State.CLOSED:
            self._release()
            transport.abort()
        return 0

    cdef int _release(self) except -1:
        self._enter(State.CLOSED)
        self._all.open.discard(self)
        self._all.held_bytes -= self._flow.held_bytes
        self._all.dropped_responses += self._responses.count
        self._drop_reader()
        self._transport = self._unparsed = None
        self._flow.fd = -1
        self._flow.held_bytes = 0
        free_queue(&self._responses)
        return 0
