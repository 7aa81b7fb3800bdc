"""Transports that have a slow peer, or that fail."""

from __future__ import annotations

import errno

from pixelfast.collect import Connection
from tests.fakes import FakeCollector, FakeTransport


class NarrowTransport(FakeTransport):
    """Buffer written data until the peer reads it, and call `pause_writing` at a limit."""

    def __init__(self, high_bytes: int, low_bytes: int = 0) -> None:
        super().__init__()
        self.held_bytes = 0
        self.max_held_bytes = 0
        self.is_paused = False
        self.connection: Connection | None = None
        self._high_bytes = high_bytes
        self._low_bytes = low_bytes

    def write(self, data: bytes) -> None:
        super().write(data)
        self.held_bytes += len(data)
        self.max_held_bytes = max(self.max_held_bytes, self.held_bytes)
        if self.held_bytes > self._high_bytes and not self.is_paused:
            self.is_paused = True
            assert self.connection is not None
            self.connection.pause_writing()

    def take_bytes(self, count: int) -> None:
        self.held_bytes -= min(count, self.held_bytes)
        if self.is_paused and self.held_bytes <= self._low_bytes:
            self.is_paused = False
            assert self.connection is not None
            self.connection.resume_writing()


def connect_narrow(fake: FakeCollector, high_bytes: int) -> tuple[Connection, NarrowTransport]:
    transport = NarrowTransport(high_bytes)
    connection = fake.connections.connect()
    transport.connection = connection
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


class TransportError(Exception):
    """Raised by a transport that is no longer usable."""


class FailingTransport(FakeTransport):
    """Raise in the next `failures` writes, as uvloop does for a closed handle."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def write(self, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise TransportError("the handle is closed")
        super().write(data)


class GoneTransport(FakeTransport):
    """Fail to send FIN, as asyncio's transports do after the peer has reset the connection."""

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


def connect_gone(fake: FakeCollector) -> tuple[Connection, GoneTransport]:
    transport = GoneTransport()
    connection = fake.connections.connect()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport


def connect_failing(fake: FakeCollector) -> tuple[Connection, FailingTransport]:
    transport = FailingTransport()
    connection = fake.connections.connect()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport
