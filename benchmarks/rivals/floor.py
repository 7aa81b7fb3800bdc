"""The cost of the event loop and the kernel alone: a fixed response, and nothing is stored.

It counts the blank lines that end requests; with `--parse` httptools reads them, with a callback
in Python for each header.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

from benchmarks.rivals.straight import GIF

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 43\r\n\r\n" + GIF


class Counting(asyncio.Protocol):
    """Count requests; wrk sends each in one piece, and one in two pieces would get no response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is not an asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


class Parsing(asyncio.Protocol):
    """Keep the target and the headers, which a handler needs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_message_complete(self) -> None:
        self._transport.write(ANSWER)
        self._url = b""
        self._headers = []


async def serve(port: int, protocol: type[asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Parsing if "--parse" in sys.argv else Counting))
