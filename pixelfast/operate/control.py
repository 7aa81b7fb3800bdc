"""The line between the supervisor and one of its processes: a socket pair, a JSON object a line.

Downwards goes one object, the process's orders (`Orders`), and an empty line once a stop begins,
while pixels are still accepted; upwards the process's figures, once a second. The line is also how
each knows of the other's end: when the supervisor is gone, however it went, its processes read the
end of the file and stop in good order.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from pixelfast.config import Config

__all__ = ["Orders", "Reporter", "receive_orders"]

_MOST_ORDERS_BYTES = 64 * 2**20


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. The settings travel with it: the file may have changed since."""

    role: str  # "collector" or "delivery"
    config: Config
    data_dir: str
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
        return cls(*await asyncio.open_connection(sock=line))

    def report(self, figures: dict[str, Any]) -> None:
        """Send figures; dropped where the supervisor does not read."""
        if self._writer.transport.get_write_buffer_size() == 0:
            self._writer.write(msgspec.json.encode(figures) + b"\n")

    async def supervisor_gone(self, on_leave: Callable[[], None]) -> None:
        """Return when the supervisor has closed its end; call `on_leave` once a stop begins."""
        while await self._reader.read(65536):
            on_leave()
