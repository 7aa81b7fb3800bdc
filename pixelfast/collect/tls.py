"""TLS between a socket and a `Connection`.

`TlsTransport` is the protocol of the socket's transport, and the transport of the connection. The
event loops' own TLS transports do not fit: they drop the responses that a connection still owes
when its peer has said that it sends nothing more, they buffer what no limit counts, and they do not
tell of handshakes that are under way.

A transport is in one of these states:

    state      next state  when
    HANDSHAKE  OPEN        the handshake is complete; there is a connection from now on
    OPEN       ENDED       the connection has written its last response
    any        CLOSED      the handshake failed or took too long, or the connection closes
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

# RFC 8446 section 5.1 and 5.2; RFC 5246 section 6.2.3 for TLS 1.2, which may add more.
_MAX_PLAIN_BYTES = 2**14
_MAX_RECORD_BYTES = 5 + _MAX_PLAIN_BYTES + 2048


class _State(enum.IntEnum):
    HANDSHAKE = 0
    OPEN = 1
    ENDED = 2
    CLOSED = 3


class TlsConnections:
    """The TLS connections of one collector.

    Args:
        connections: what they become once their handshake is complete.
        context: certificate and settings of handshakes from now on; may be replaced. None: there
            is no certificate, and connections are closed.
        max_connections: as that of `connections`; a handshake counts as a connection.
        handshake_timeout_s: longest time a handshake may take.

    Attributes:
        failures: handshakes that failed or took too long.
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
        self._began_s: dict[TlsTransport, float] = {}  # of handshakes, in this order
        self.follow(max_connections, handshake_timeout_s)

    def follow(self, max_connections: int, handshake_timeout_s: float) -> None:
        """Follow other limits."""
        self._max_handshakes = max_connections + MAX_OVER_LIMIT
        self._handshake_timeout_s = handshake_timeout_s

    def connect(self) -> TlsTransport:
        """Return the protocol of a new socket; the servers of the loop call it."""
        return TlsTransport(self)

    def sweep(self) -> None:
        """End the handshakes whose time is up; to be called about once a second."""
        now_s = self._clock()
        for transport, began_s in list(self._began_s.items()):
            if now_s - began_s <= self._handshake_timeout_s:
                break
            transport.abort()

    def begin(self, transport: TlsTransport) -> bool:
        """Count a handshake; return whether there is room for it."""
        self._began_s[transport] = self._clock()
        self.connections.handshakes += 1
        return len(self.connections.open) + self.connections.handshakes <= self._max_handshakes

    def end(self, transport: TlsTransport, *, is_complete: bool) -> None:
        """Count a handshake no longer."""
        del self._began_s[transport]
        self.connections.handshakes -= 1
        if not is_complete:
            self.failures += 1


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """One TLS connection."""

    def __init__(self, all_of_them: TlsConnections) -> None:
        super().__init__()
        self._all = all_of_them
        self._state = _State.HANDSHAKE
        self._raw: asyncio.Transport
        self._connection: Connection | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._sealed_bytes = 0  # of a record that is not whole yet
        self._has_peer_ended = False
        self._is_write_paused = False
        self._is_read_paused = False  # by the connection
        self._is_raw_paused = False

    # --- what the socket's transport calls -----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        # As a connection wants it of its transport: `pause_writing` comes with the first byte held.
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
            self._shake_hands()
        if self._state == _State.OPEN:
            self._read(len(data))

    def eof_received(self) -> bool:
        """FIN, or the peer's close_notify: it may wait for responses."""
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

    # --- what the connection calls -------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return default  # nothing may be written past this transport
        return self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._connection is not None
        return self._connection

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0, "the limit of the socket's transport is 0 already"
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
        """End sending with close_notify and FIN; data that is received afterwards is discarded."""
        if self._state == _State.OPEN:
            self._say_goodbye()
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
            self._say_goodbye()
        self._close()
        self._raw.close()

    def abort(self) -> None:
        self._close()
        self._raw.abort()

    # --- records -------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError:
            self._send()  # the alert that says why
            self.close()
        else:
            self._state = _State.OPEN
            self._all.end(self, is_complete=True)
            self._send()
            self._connection = self._all.connections.connect()
            self._connection.connection_made(self)

    def _read(self, new_bytes: int) -> None:
        """Pass on what can be decrypted, in one piece, as `Connection` wants it.

        `new_bytes`: how many have arrived.
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
        self._send()  # an alert, or the reply to an update of keys
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

    def _say_goodbye(self) -> None:
        # The peer has not said it yet, or the connection has failed.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()

    def _pace_reading(self) -> None:
        """Read from the socket only if neither side is to wait.

        A peer that does not read what it is sent is not read from: TLS itself has replies, too.
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
