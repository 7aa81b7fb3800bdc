"""A hostile destination in its own process: `python -m tests.deliver.hostile`.

The first part of a request's path selects one of `BEHAVIOURS`. The process prints its port and ends
when its standard input is closed. `/served/NAME` returns how many requests a behaviour has had.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

__all__ = ["BEHAVIOURS"]

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = HEAD + b"Content-Length: 0\r\n\r\n"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def once(response: bytes) -> Behaviour:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        await writer.drain()

    return play


def flood(begin: bytes, unit: bytes) -> Behaviour:
    piece = unit * (32768 // len(unit))

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(piece)
            await writer.drain()

    return play


def slowly(text: bytes, pause_s: float) -> Behaviour:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in text:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause_s)

    return play


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def flood_when_idle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(EMPTY)
    await writer.drain()
    await asyncio.sleep(0.01)
    while True:
        writer.write(EMPTY * 500)
        await writer.drain()


BEHAVIOURS: dict[str, Behaviour] = {
    "interim": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "hints": flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "chunks": flood(CHUNKED, b"1\r\nx\r\n"),
    "body": flood(b"HTTP/1.1 500 No\r\n\r\n", b"Code: 1. "),
    "headers": flood(HEAD, b"Set-Cookie: a=b\r\n"),
    "responses": flood(b"", EMPTY),
    "idle": flood_when_idle,
    "drip": slowly(HEAD * 100, 0.01),
    "bytes": slowly(CHUNKED + b"1\r\nx\r\n" * 20_000, 0.0),
    "hang": hang,
    "reset": reset,
    "garbage": once(b"\x16\x03\x01\x00\xff" * 100),
    "redirect": once(b"HTTP/1.1 307 No\r\nLocation: /redirect\r\nContent-Length: 0\r\n\r\n"),
    "deep": once(HEAD + b"Content-Length: 60000\r\n\r\n" + b"[" * 60_000),
    "later": once(b"HTTP/1.1 503 No\r\nRetry-After: " + b"9" * 5000 + b"\r\n\r\n"),
}


async def main() -> None:
    served: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError, asyncio.LimitOverrunError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode().split("/")
                if path[1] == "served":
                    count = str(served[path[2]]).encode()
                    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(count) + count)
                    continue
                served[path[1]] += 1
                await BEHAVIOURS[path[1]](reader, writer)
                if path[1] not in {"deep", "redirect"}:
                    break
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
