"""Speak TLS between a socket and a `Connection`.

`TlsTransport` is the protocol of the socket's transport, and the transport of the connection. The
TLS transports of the event loops are not suitable: they drop the responses that a connection still
owes when its peer has sent close_notify, they buffer bytes that no limit counts, and they do not
report handshakes in progress.

A transport is in one of these states:

    state      next state  when
    HANDSHAKE  OPEN        the handshake is complete, and the connection was created
    OPEN       ENDED       the connection has written its last response
    any        CLOSED      the handshake failed or took too long, or the connection closed
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
import time
from collections.abc import Callable
from typing import Any, cast

from pixelfast.collect.connection import MAX_OVER_LIMIT, Connection, Connections

__all__ = ["TlsConnections", "TlsTransport"]

# RFC 8446 sections 5.1 and 5.2; RFC 5246 section 6.2.3 for TLS 1.2, which has a larger overhead.
_MAX_PLAIN_BYTES = 2**14
_MAX_RECORD_BYTES = 5 + _MAX_PLAIN_BYTES + 2048


class _State(enum.IntEnum):
    HANDSHAKE = 0
    OPEN = 1
    ENDED = 2
    CLOSED = 3


class TlsConnections:
    """Manage the TLS connections of one collector.

    Args:
        connections: creates a connection after each completed handshake.
        context: the TLS context of new handshakes; may be replaced. If it is None, there is no
            certificate, and new connections are closed.
        max_connections: the limit of `connections`, which includes handshakes.
        handshake_timeout_s: maximum duration of a handshake.
        clock: returns monotonic time in seconds.

    Attributes:
        failures: number of handshakes that failed or took too long.
    """

    def __init__(
        self,
        connections: Connections,
        context: ssl.SSLContext | None = None,
        *,
        max_connections: int = 20_000,
        handshake_timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections = connections
        self.context = context
        self.failures = 0
        self._clock = clock
        self._began_s: dict[TlsTransport, float] = {}  # start times of handshakes, oldest first
        self.follow(max_connections, handshake_timeout_s)

    def follow(self, max_connections: int, handshake_timeout_s: float) -> None:
        """Apply new limits."""
        self._max_handshakes = max_connections + MAX_OVER_LIMIT
        self._handshake_timeout_s = handshake_timeout_s

    def connect(self) -> TlsTransport:
        """Return the protocol of a new socket, for `create_server` of the event loop."""
        return TlsTransport(self)

    def sweep(self) -> None:
        """Close handshakes that take too long. Call this about once per second."""
        now_s = self._clock()
        for transport, began_s in list(self._began_s.items()):
            if now_s - began_s <= self._handshake_timeout_s:
                break
            transport.abort()

    def begin(self, transport: TlsTransport) -> bool:
        """Count a handshake; return whether the limits allow it."""
        self._began_s[transport] = self._clock()
        self.connections.handshakes += 1
        return len(self.connections.open) + self.connections.handshakes <= self._max_handshakes

    def end(self, transport: TlsTransport, *, is_complete: bool) -> None:
        """Stop counting a handshake."""
        del self._began_s[transport]
        self.connections.handshakes -= 1
        if not is_complete:
            self.failures += 1


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """Connect one TLS socket with its connection."""

    def __init__(self, all_of_them: TlsConnections) -> None:
        super().__init__()
        self._all = all_of_them
        self._state = _State.HANDSHAKE
        self._raw: asyncio.Transport
        self._connection: Connection | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._sealed_bytes = 0  # of an incomplete record
        self._has_peer_ended = False
        self._is_write_paused = False
        self._is_read_paused = False  # by the connection
        self._is_raw_paused = False

    # --- called by the socket's transport ------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        # A connection expects `pause_writing` for the first byte that its transport buffers.
        self._raw.set_write_buffer_limits(0)
        context = self._all.context
        if not self._all.begin(self) or context is None:
            self.abort()
        else:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._state >= _State.ENDED or self._has_peer_ended:
            return
        self._incoming.write(data)
        if self._state == _State.HANDSHAKE:
            self._do_handshake()
        if self._state == _State.OPEN:
            self._read(len(data))

    def eof_received(self) -> bool:
        """Handle FIN or close_notify of the peer, which may still wait for responses."""
        if self._state != _State.OPEN or self._connection is None:
            return False
        self._has_peer_ended = True
        return bool(self._connection.eof_received())

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._pace_reading()
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._pace_reading()
        if self._connection is not None:
            self._connection.resume_writing()

    # --- called by the connection --------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return default  # the connection must not bypass this transport
        return self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._connection is not None
        return self._connection

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0, "the socket's transport has the limit 0"
        del low

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state != _State.OPEN:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:  # it has failed before
            self.abort()
        self._send()

    def write_eof(self) -> None:
        """End sending with close_notify and FIN, and discard all data received afterwards."""
        if self._state == _State.OPEN:
            self._send_close_notify()
            self._state = _State.ENDED
            self._raw.write_eof()

    def pause_reading(self) -> None:
        self._is_read_paused = True
        self._pace_reading()

    def resume_reading(self) -> None:
        self._is_read_paused = False
        self._pace_reading()

    def close(self) -> None:
        if self._state == _State.OPEN:
            self._send_close_notify()
        self._close()
        self._raw.close()

    def abort(self) -> None:
        self._close()
        self._raw.abort()

    # --- records -------------------------------------------------------------------------------

    def _do_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError:
            self._send()  # the alert with the reason
            self.close()
        else:
            self._state = _State.OPEN
            self._all.end(self, is_complete=True)
            self._send()
            self._connection = self._all.connections.connect()
            self._connection.connection_made(self)

    def _read(self, new_bytes: int) -> None:
        """Pass all data that can be decrypted to the connection, in one piece.

        `new_bytes` is the number of encrypted bytes that have just arrived.
        """
        parts: list[bytes] = []
        has_failed = has_ended = False
        sealed_bytes = 0
        try:
            while not has_ended and (self._incoming.pending or self._tls.pending()):
                parts.append(self._tls.read(_MAX_PLAIN_BYTES))
                has_ended = not parts[-1]  # close_notify
        except ssl.SSLWantReadError:
            sealed_bytes = min(new_bytes + (0 if parts else self._sealed_bytes), _MAX_RECORD_BYTES)
        except ssl.SSLError:
            has_failed = True
        self._send()  # an alert, or the response to a key update
        connection = self._connection
        assert connection is not None
        if parts and self._state == _State.OPEN:
            connection.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._state != _State.OPEN:
            return
        if has_failed or (has_ended and not self.eof_received()):
            self.close()
        elif sealed_bytes != self._sealed_bytes:
            self._sealed_bytes = sealed_bytes
            connection.hold(sealed_bytes)

    def _send(self) -> None:
        if self._outgoing.pending and self._state != _State.CLOSED:
            self._raw.write(self._outgoing.read())

    def _send_close_notify(self) -> None:
        # `unwrap` raises an error if the peer has not sent close_notify yet, or if TLS has failed.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()

    def _pace_reading(self) -> None:
        """Read from the socket unless the connection or the peer must catch up.

        If the peer does not read, stop reading from it, because even TLS itself sends responses.
        """
        is_paused = self._is_write_paused or self._is_read_paused
        if is_paused != self._is_raw_paused and self._state != _State.CLOSED:
            self._is_raw_paused = is_paused
            if is_paused:
                self._raw.pause_reading()
            else:
                self._raw.resume_reading()

    def _close(self) -> None:
        if self._state == _State.HANDSHAKE:
            self._all.end(self, is_complete=False)
        self._state = _State.CLOSED
