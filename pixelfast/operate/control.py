"""The connection between the supervisor and a process: a socket pair with one JSON object per line.

The supervisor sends `Orders`, then messages: `Reload`, `Drain`, and `Leave` at the beginning of a
stop. The process sends its figures once a second. Each side notices by end-of-file that the other
has ended: when the supervisor ends for any reason, its processes stop in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import msgspec

from pixelfast.config import Config

__all__ = ["Drain", "Leave", "Message", "Orders", "Reload", "Reporter", "encode", "receive_orders"]

_MAX_ORDERS_BYTES = 64 * 2**20


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The orders of a process. They contain the settings, because the file may have changed.

    `generation` is the number of the settings. The process reports the number of those it applies.
    """

    role: str  # "collector" or "delivery"
    config: Config
    data_dir: str
    generation: int = 0
    slot: int = 0  # of a collector
    number: int = 0  # of a delivery process
    destinations: list[str] | None = None  # of a delivery process; None: all
    workers: int = 1
    listen_fds: list[int] = []
    tls_fds: list[int] = []  # those of `listen_fds` that use TLS
    rates_fd: int = -1  # shared memory of rate limits
    rate_places: dict[str, int] = {}  # offset of the word of each source in it

    @property
    def name(self) -> str:
        """The name of the process. Most servers have one delivery process, without a number."""
        if self.role == "collector":
            return f"collector-{self.slot}"
        return f"{self.role}-{self.number}" if self.number else self.role

    @property
    def inherited_fds(self) -> list[int]:
        """The descriptors that the process inherits."""
        return [*self.listen_fds, *([] if self.rates_fd < 0 else [self.rates_fd])]


class Reload(msgspec.Struct, frozen=True, kw_only=True, tag="reload"):
    """Apply other settings."""

    config: Config
    generation: int
    rate_places: dict[str, int] = {}
    destinations: list[str] | None = None


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """A stop has begun: health checks fail, but pixels are still accepted."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Finish open connections and end; another process accepts from the same sockets."""


Message: TypeAlias = Reload | Leave | Drain


def encode(message: Orders | Message) -> bytes:
    """Encode a message."""
    return msgspec.json.encode(message) + b"\n"


def receive_orders(line: socket.socket) -> Orders:
    """Wait for the orders; to be called before the event loop starts.

    Raises:
        EOFError: the supervisor has ended.
    """
    received = b""
    while not received.endswith(b"\n"):
        chunk = line.recv(65536, socket.MSG_PEEK)
        if not chunk or len(received) > _MAX_ORDERS_BYTES:
            raise EOFError("the supervisor has ended")
        # The reporter reads everything after the orders.
        received += line.recv(chunk.find(b"\n") + 1 or len(chunk))
    return msgspec.json.decode(received, type=Orders)


class Reporter:
    """The connection of a process to the supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, line: socket.socket) -> Reporter:
        line.setblocking(False)
        return cls(*await asyncio.open_connection(sock=line, limit=_MAX_ORDERS_BYTES))

    def report(self, figures: dict[str, Any]) -> None:
        """Send figures, unless the supervisor does not read them or has ended."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self._writer.write(msgspec.json.encode(figures) + b"\n")

    async def drain(self) -> None:
        """Wait until the supervisor has received everything, or has ended."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the messages of the supervisor until it closes the connection."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                if line.endswith(b"\n"):  # otherwise it is incomplete
                    yield msgspec.json.decode(line, type=Message)
