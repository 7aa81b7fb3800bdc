"""The line between the supervisor and one of its processes: a socket pair, a JSON object a line.

Downwards go the process's orders (`Orders`), then messages: `Reload`, `Drain`, and `Leave` once a
stop has begun while pixels are still accepted. Upwards go the process's figures, once a second. The
line is also how each knows of the other's end: when the supervisor is gone, however it went, its
processes read the end of the file and stop in good order.
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

_MOST_ORDERS_BYTES = 64 * 2**20


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. The settings travel with it: the file may have changed since.

    `generation` numbers the settings; the process reports the number of those that it follows.
    """

    role: str  # "collector" or "delivery"
    config: Config
    data_dir: str
    generation: int = 0
    slot: int = 0
    workers: int = 1
    listen_fds: list[int] = []
    tls_fds: list[int] = []  # those of `listen_fds` that speak TLS
    rates_fd: int = -1  # the shared memory of rate limits
    rate_places: dict[str, int] = {}  # where in it the word of each source begins

    @property
    def inherited_fds(self) -> list[int]:
        """The descriptors that the process gets with these orders."""
        return [*self.listen_fds, *([] if self.rates_fd < 0 else [self.rates_fd])]


class Reload(msgspec.Struct, frozen=True, kw_only=True, tag="reload"):
    """Follow other settings from now on."""

    config: Config
    generation: int
    rate_places: dict[str, int] = {}


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """A stop has begun: health checks fail, pixels are still accepted."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Another process accepts from the same sockets: end what is open, and then the process."""


Message: TypeAlias = Reload | Leave | Drain


def encode(message: Orders | Message) -> bytes:
    """Return a message as it goes down the line."""
    return msgspec.json.encode(message) + b"\n"


def receive_orders(line: socket.socket) -> Orders:
    """Wait for the orders, before any event loop runs.

    Raises:
        EOFError: the supervisor went away first.
    """
    received = b""
    while not received.endswith(b"\n"):
        chunk = line.recv(65536, socket.MSG_PEEK)
        if not chunk or len(received) > _MOST_ORDERS_BYTES:
            raise EOFError("the supervisor is gone")
        # What stands behind the orders is the reporter's.
        received += line.recv(chunk.find(b"\n") + 1 or len(chunk))
    return msgspec.json.decode(received, type=Orders)


class Reporter:
    """A process's end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, line: socket.socket) -> Reporter:
        line.setblocking(False)
        return cls(*await asyncio.open_connection(sock=line, limit=_MOST_ORDERS_BYTES))

    def report(self, figures: dict[str, Any]) -> None:
        """Send figures; dropped where the supervisor does not read, or is gone."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self._writer.write(msgspec.json.encode(figures) + b"\n")

    async def drain(self) -> None:
        """Wait until the supervisor has what was sent, if it is still there."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the messages of the supervisor until it closes its end of the line."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                if line.endswith(b"\n"):  # else it ended in the middle of it
                    yield msgspec.json.decode(line, type=Message)
