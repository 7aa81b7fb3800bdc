"""Run real workers on real sockets, and clients for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from pixelfast.collect import Worker
from pixelfast.config import Config, Server, Source, Spool, WriteKey
from pixelfast.spool import DataDir, Position, SlotReader
from tests.fakes import DEMO

PATIENCE_S = 20.0  # until a test that waits for a socket fails
CLOSE = [b"Connection: close"]

Run = Callable[[Coroutine[Any, Any, None]], None]


def make_config(folder: Path, **server: Any) -> Config:
    return Config(
        data_dir=str(folder),
        sources=(DEMO, Source(name="web", write_keys=(WriteKey(key="wk-web"),))),
        server=Server(**{"trusted_proxies": (), **server}),
        spool=Spool(segment_bytes=2**17),
    )


@contextlib.asynccontextmanager
async def working(
    folder: Path, listening: socket.socket | None = None, **server: Any
) -> AsyncIterator[tuple[Worker, Any]]:
    """Start a worker, yield it with its address, and stop it. No callback may fail."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: failures.append(told))
    if listening is None:
        listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    worker = Worker(make_config(folder, **server), DataDir.open(folder), slot=0)
    try:
        await worker.start([listening])
        yield worker, address
        await worker.stop()
        assert [] == failures
    finally:
        listening.close()


@contextlib.asynccontextmanager
async def client(
    address: Any,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r")[0]))


async def ask(address: Any, request: bytes) -> bytes:
    """Send a request over a new connection and return everything received until its end."""
    async with client(address) as (reader, writer):
        writer.write(request)
        return await reader.read()


def stored(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    reader = SlotReader(DataDir.open(folder), 0, Position())
    found = []
    while frames := reader.read():
        for frame in frames:
            found += [(frame.source, orjson.loads(line)) for line in bytes(frame.body).splitlines()]
    reader.close()
    assert 0 == reader.damaged_bytes
    return found


def connect_and_leave(address: Any, data: bytes, *, resets: bool) -> None:
    """Send, and close or reset the connection before the server accepts it."""
    with socket.create_connection(address) as rude:
        rude.sendall(data)
        if resets:
            no_linger = struct.pack("ii", 1, 0)
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
