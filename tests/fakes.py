"""Replace the event loop, the disk and the network in tests. Nothing here sleeps.

`FakeLoop` runs callbacks and moves its clock only when a test says so. `FakeDisk` replaces the
files and the commit thread of a slot: a commit lasts until a test completes it or makes it fail.
`FakeTransport` records writes and has no socket, so a connection uses `transport.write`.
`SocketTransport` has a real socket, so a connection uses send(2), which writes a part or nothing
when the socket is full. `FakeCollector` puts all of them behind a real `Collector`."""

from __future__ import annotations

import heapq
import itertools
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pixelfast.collect.budgets import RateBudgets
from pixelfast.collect.clock import Clock
from pixelfast.collect.collector import Collector
from pixelfast.collect.connection import Connection, Connections, State
from pixelfast.collect.responses import Responses
from pixelfast.collect.sources import Sources
from pixelfast.collect.tls import TlsConnections, TlsTransport
from pixelfast.config import Source, WriteKey
from pixelfast.spool import SpoolWriter
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, Frame, SegmentId
from pixelfast.spool.frames import parse_frame
from tests.tls import TlsPeer, server_context

NODE = bytes(range(16))


class FakeFuture:
    """A future that is already done, as `FakeLoop.run_in_executor` returns it."""

    def __init__(self, loop: FakeLoop, result: Any, error: BaseException | None) -> None:
        self._loop = loop
        self._result = result
        self._error = error

    def add_done_callback(self, callback: Callable[[FakeFuture], None]) -> None:
        self._loop.call_soon(callback, self)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class FakeTimer:
    """What `FakeLoop.call_later` returns."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """An event loop that runs only when a test calls `turn` or `advance`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.readers: dict[int, Callable[[], None]] = {}
        self._ready: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._timers: list[tuple[float, int, FakeTimer, Callable[..., Any], tuple[Any, ...]]] = []
        self._counter = itertools.count()

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self._ready.append((callback, arguments))

    def call_later(
        self, delay_s: float, callback: Callable[..., Any], *arguments: Any
    ) -> FakeTimer:
        timer = FakeTimer()
        entry = (self.now_s + delay_s, next(self._counter), timer, callback, arguments)
        heapq.heappush(self._timers, entry)
        return timer

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def run_in_executor(self, _pool: None, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return FakeFuture(self, function(*arguments), None)
        except OSError as error:
            return FakeFuture(self, None, error)

    def turn(self) -> None:
        """Run all ready callbacks, including those that they schedule."""
        while self._ready:
            callback, arguments = self._ready.pop(0)
            callback(*arguments)

    def advance(self, seconds: float) -> None:
        """Advance the clock and run each timer when it is due."""
        until_s = self.now_s + seconds
        self.turn()
        while self._timers and self._timers[0][0] <= until_s:
            self.now_s, _, timer, callback, arguments = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                callback(*arguments)
            self.turn()
        self.now_s = until_s


class FakeSegment:
    """A segment in memory."""

    class _Path:
        def __init__(self, name: str) -> None:
            self.name = name

    def __init__(self, number: int, slot: int) -> None:
        self.id = SegmentId(NODE, slot, number)
        self.fd = number
        self.offset = SEGMENT_HEADER_BYTES
        self.data = bytearray(SEGMENT_HEADER_BYTES)
        self.path = self._Path(f"{number:016x}.seg")
        self.retired: bool | None = None  # set by `retire`: whether it was sound


class FakeDisk:
    """Replace `SlotFiles` and `Committer`: record writes and syncs, and fail on demand."""

    done_fd = 99

    def __init__(self, loop: FakeLoop, *, slot: int = 0, segment_bytes: int = 64 * 2**20) -> None:
        self.slot = slot
        self.segment_bytes = segment_bytes
        self.segments: list[FakeSegment] = []
        self.create_errors: list[OSError] = []  # raised by the next calls of `create`
        self.other_bytes = 0  # counted as used, in addition to the segments
        self.free_bytes = 2**40
        self.next_number = 0  # of the first event
        self.is_closed = False
        self.syncs = 0
        self._loop = loop
        self._job: tuple[FakeSegment, bytes, int, bool] | None = None
        self._result: int | None = None

    # SlotFiles

    def create(self) -> FakeSegment:
        if self.create_errors:
            raise self.create_errors.pop(0)
        segment = FakeSegment(len(self.segments) + 1, self.slot)
        self.segments.append(segment)
        return segment

    def retire(self, segment: FakeSegment, *, is_sound: bool) -> None:
        segment.retired = is_sound

    def measure(self, current: FakeSegment | None) -> tuple[int, int]:
        del current
        used = self.other_bytes + sum(len(segment.data) for segment in self.segments)
        return used, self.free_bytes

    def close(self) -> None:
        self.is_closed = True

    # Committer

    @property
    def is_busy(self) -> bool:
        return self._job is not None

    def submit(self, fd: int, batch: CommitBatch | None, offset: int, sync: bool) -> None:
        assert self._job is None, "only one commit may run"
        data = batch.sealed() if batch is not None else b""
        self._job = (self.segments[fd - 1], data, offset, sync)

    def finish(self) -> int | None:
        result, self._result = self._result, None
        if result is not None:
            self._job = None
        return result

    # for tests

    def complete(self, error: int = 0) -> None:
        """End the current commit: store it, or fail with `error`, an errno."""
        assert self._job is not None, "there is no commit to complete"
        segment, data, offset, sync = self._job
        if not error:
            segment.data[offset : offset + len(data)] = data
            self.syncs += sync
        self._result = error
        self._loop.readers[self.done_fd]()

    def settle(self) -> None:
        """Run the loop and complete commits until nothing is pending."""
        self._loop.turn()
        while self.is_busy:
            self.complete()
            self._loop.turn()

    def frames(self) -> list[Frame]:
        """Return the frames of all segments, in order."""
        found: list[Frame] = []
        for segment in self.segments:
            offset = SEGMENT_HEADER_BYTES
            view = memoryview(bytes(segment.data))
            while isinstance(frame := parse_frame(view, offset, offset, segment.id), Frame):
                found.append(frame)
                offset += frame.length
        return found

    def events(self) -> list[tuple[str, bytes]]:
        """Return all stored events with their sources."""
        return [
            (frame.source, event)
            for frame in self.frames()
            for event in bytes(frame.body).splitlines()
        ]


def make_writer(
    loop: FakeLoop, disk: FakeDisk, on_stored: Callable[..., None], **options: Any
) -> SpoolWriter:
    """Return a real writer on a fake disk, with its first segment ready."""
    names = options.pop("names", ["demo"])
    writer = SpoolWriter(loop, disk, disk, names, on_stored, **options)  # type: ignore[arg-type]
    loop.turn()
    return writer


class FakeTransport:
    """A transport without a socket that records writes; the test plays the peer."""

    def __init__(self, peer: tuple[str, int] | str = ("192.0.2.1", 40000)) -> None:
        self.peer = peer
        self._writes: list[bytes] = []
        self.is_reading = True
        self.has_eof = False
        self.is_closed = False
        self.is_aborted = False

    @property
    def writes(self) -> list[bytes]:
        """The writes since the last `take`."""
        return self._writes

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def take(self) -> bytes:
        """Return the bytes written since the last `take`."""
        sent = self.sent
        self.writes.clear()
        return sent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0, "pause_writing must be called for the first buffered byte"

    def write(self, data: bytes) -> None:
        assert not self.has_eof, "write after write_eof"
        self._writes.append(bytes(data))

    def write_eof(self) -> None:
        self.has_eof = True

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class TlsFakeTransport(FakeTransport):
    """Put TLS between the transport and the connection; writes are decrypted by the client."""

    def __init__(self, peer: tuple[str, int] | str = ("192.0.2.1", 40000)) -> None:
        super().__init__(peer)
        self.client = TlsPeer()

    @property
    def writes(self) -> list[bytes]:
        # The first write may have arrived with the end of the handshake.
        opened = [self.client.open(each) for each in [b"", *self._writes]]
        self._writes.clear()
        self._opened += [each for each in opened if each]
        return self._opened

    def attach(self, connection: TlsTransport) -> TlsFakeConnection:
        self._opened: list[bytes] = []
        connection.connection_made(self)  # type: ignore[arg-type]
        connection.data_received(self.client.shake_hands())
        while self._writes:
            received = b"".join(self._writes)
            self._writes.clear()
            if reply := self.client.shake_hands(received):
                connection.data_received(reply)
            else:
                break
        return TlsFakeConnection(connection, self.client)


class TlsFakeConnection:
    """Replace a connection in a test: encrypt its input as the client does."""

    def __init__(self, transport: TlsTransport, client: TlsPeer) -> None:
        self._transport = transport
        self._client = client
        inner = transport.get_protocol()
        assert isinstance(inner, Connection)
        self._connection = inner
        self.eof_received = transport.eof_received
        self.pause_writing = transport.pause_writing
        self.resume_writing = transport.resume_writing
        self.connection_lost = transport.connection_lost

    @property
    def state(self) -> State:
        return self._connection.state

    def data_received(self, data: bytes) -> None:
        self._transport.data_received(self._client.seal(data))


class SocketTransport(FakeTransport):
    """A transport with a real socket: connections call send(2), and `write` gets the rest.

    The rest is held until the peer reads, and the connection is paused meanwhile. The peer reads
    when a test looks at `sent` or calls `receive`. By default each send is one message, which a
    full socket rejects as a whole (EAGAIN); a stream socket with a small buffer accepts a part.
    """

    def __init__(
        self,
        peer: tuple[str, int] | str = ("192.0.2.1", 40000),
        *,
        kind: int = socket.SOCK_SEQPACKET,
        buffer_bytes: int = 2**20,
    ) -> None:
        super().__init__(peer)
        self.held = bytearray()
        self.left_over: list[int] = []  # sizes of the data that the socket did not accept
        self.is_paused = False
        self.has_peer_eof = False
        self._connection: Connection | None = None
        self._own, self._peer = socket.socketpair(socket.AF_UNIX, kind)
        self._own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        for each in (self._own, self._peer):
            each.setblocking(False)

    def attach(self, connection: Connection) -> None:
        self._connection = connection
        connection.connection_made(self)  # type: ignore[arg-type]

    @property
    def writes(self) -> list[bytes]:
        self.receive()
        return self._writes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._own if name == "socket" else super().get_extra_info(name, default)

    def write(self, data: bytes) -> None:
        assert not self.has_eof, "write after write_eof"
        assert not self.held, "write although the transport holds data"
        self.held += data
        self.left_over.append(len(data))
        self.is_paused = True
        assert self._connection is not None
        self._connection.pause_writing()

    def write_eof(self) -> None:
        super().write_eof()
        if not self.held:
            self._own.shutdown(socket.SHUT_WR)

    def receive(self, max_bytes: int = 2**30) -> bool:
        """Let the peer read; return whether it received anything."""
        count = 0
        while count < max_bytes:
            try:
                data = self._peer.recv(min(max_bytes - count, 2**20))
            except BlockingIOError:
                break
            if not data:
                self.has_peer_eof = True
                break
            self._writes.append(data)
            count += len(data)
            self._send_held()
        return count > 0

    def close_sockets(self) -> None:
        self._connection = None
        self._own.close()
        self._peer.close()

    def _send_held(self) -> None:
        while self.held:
            try:
                del self.held[: self._own.send(self.held[:65536])]
            except BlockingIOError:
                return
            if self.has_eof and not self.held:
                self._own.shutdown(socket.SHUT_WR)
        if self.is_paused:
            self.is_paused = False
            assert self._connection is not None
            self._connection.resume_writing()


DEMO = Source(name="demo", write_keys=(WriteKey(key="wk-demo"),))


class FakeCollector:
    """A real collector and spool writer with a fake loop, disk, clock and network."""

    def __init__(
        self,
        sources: Iterable[Source] = (DEMO,),
        *,
        budgets: RateBudgets | None = None,
        writer: dict[str, Any] | None = None,
        connections: dict[str, Any] | None = None,
        has_sockets: bool = False,
        has_tls: bool = False,
        **options: Any,
    ) -> None:
        sources = tuple(sources)
        self._sockets: list[SocketTransport] | None = [] if has_sockets else None
        self.loop = FakeLoop()
        self.disk = FakeDisk(self.loop)
        self.clock = Clock.fixed()
        self.collector = Collector(Sources(sources, budgets), Responses(), self.clock, **options)
        self.connections = Connections(self.collector, **(connections or {}))
        self.tls: TlsConnections | None = None
        if has_tls:
            self.tls = TlsConnections(self.connections, server_context(), clock=self.loop.time)
        self.collector.writer = make_writer(
            self.loop,
            self.disk,
            self.connections.on_stored,
            names=[source.name for source in sources],
            **(writer or {}),
        )

    def connect(
        self, peer: tuple[str, int] | str = ("192.0.2.1", 40000)
    ) -> tuple[Connection, FakeTransport]:
        if self.tls is not None:
            over_tls = TlsFakeTransport(peer)
            return over_tls.attach(self.tls.connect()), over_tls  # type: ignore[return-value]
        connection = self.connections.connect()
        if self._sockets is None:
            transport = FakeTransport(peer)
            connection.connection_made(transport)  # type: ignore[arg-type]
            return connection, transport
        self._sockets.append(SocketTransport(peer))
        self._sockets[-1].attach(connection)
        return connection, self._sockets[-1]

    def settle(self) -> None:
        """Complete commits and let the peers read until nothing is pending."""
        self.disk.settle()
        while any(each.receive() for each in self._sockets or ()):
            self.disk.settle()

    def close(self) -> None:
        for each in self._sockets or ():
            each.close_sockets()

    def exchange(self, request: bytes, **options: Any) -> bytes:
        """Send bytes over a new connection, complete all commits, and return the responses."""
        connection, transport = self.connect(**options)
        connection.data_received(request)
        self.disk.settle()
        return transport.sent
