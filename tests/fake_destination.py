"""An HTTP destination that follows the script of a test, on a free loopback port.

It does not use a server library, because none would send half a response, reset or hang.

    async with FakeDestination([FakeResponse(503), FakeResponse(200)]) as destination:
        ...
        await destination.received(2)
        destination.requests[0].body

The script is a sequence of responses; once it is used up, every request gets a 200. A script can
also be a function of the request. While the destination is down, it keeps its port, where
connections are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.listener import Listener

WAIT_S = 10.0  # limit at which a test fails, not a time that it waits


@dataclass(frozen=True)
class Request:
    """One received request."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int  # 1 for the first connection, and so on

    def values(self, name: str) -> list[str]:
        """Return all values of a header; its case does not matter."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """Return the value of a header; fail if it is duplicated."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} occurs {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def plain_body(self) -> bytes:
        is_packed = self.value("Content-Encoding") == "gzip"
        return gzip.decompress(self.body) if is_packed else self.body

    def events(self) -> list[Any]:
        """Return the events of a JSON array, an object with `batch`, NDJSON, or a single event."""
        body = self.plain_body
        if self.value("Content-Type") == "application/x-ndjson":
            return [json.loads(line) for line in body.split(b"\n")[:-1]]
        value = json.loads(body)
        if isinstance(value, dict):
            return value.get("batch", [value])
        return value


@dataclass(frozen=True)
class FakeResponse:
    """One response of a script.

    Args:
        then: "keep" the connection, "close" it properly, "reset" it, "cut" it after half of the
            body, "drip" an endless body, "hang" after half of the body, or "flood": repeat the body
            after `raw` without end, as fast as it is read.
        first: an event to wait for before the response, "never" to wait forever, or "reset" to
            reset the connection immediately.
        raw: bytes to send instead of status, headers and body.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"ok"
    then: Literal["keep", "close", "reset", "cut", "drip", "hang", "flood"] = "keep"
    first: asyncio.Event | Literal["never", "reset"] | None = None
    raw: bytes | None = None

    def head(self, length: int) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Scripted"]
        if self.then != "drip":
            lines.append(f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


OK = FakeResponse()
Script = Iterable[FakeResponse] | Callable[[Request], FakeResponse]


class FakeDestination:
    """Record requests and respond by a script."""

    def __init__(self, script: Script = (), *, is_up: bool = True) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.sent_bytes = 0  # of endless responses
        self._script = script if callable(script) else iter(script)
        self._is_up = is_up
        self._changed = asyncio.Condition()
        self._listener = Listener(self._serve)
        # This socket is bound but never listens. It reserves the port while the destination is
        # down.
        self._place = _bind(0)
        self.port = int(self._place.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def __aenter__(self) -> Self:
        if self._is_up:
            await self.go_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_down()
        self._place.close()

    async def go_up(self) -> None:
        await self._listener.open(sock=_bind(self.port), limit=2**24)

    async def go_down(self) -> None:
        """Stop listening and drop all open connections."""
        await self._listener.close()

    def respond_with(self, script: Script) -> None:
        """Replace the script."""
        self._script = script if callable(script) else iter(script)

    async def received(self, count: int = 1) -> list[Request]:
        """Wait for a number of requests and return all requests received so far."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a condition on the requests or connections is true."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(is_so)

    def events(self) -> list[Any]:
        """Return the events of all requests, in the order of arrival."""
        return [event for request in self.requests for event in request.events()]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.requests.append(request)
                response = self._script(request) if callable(self._script) else self._next()
                await self._notify()
                if not await self._play(response, reader, writer):
                    break
        except (
            ConnectionError,
            EOFError,
            asyncio.CancelledError,
        ):  # EOFError: the request is incomplete
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.open_connections -= 1
            with contextlib.suppress(asyncio.CancelledError):
                await self._notify()

    def _next(self) -> FakeResponse:
        assert not callable(self._script)
        return next(self._script, OK)

    async def _play(
        self, response: FakeResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Respond, and return whether the connection is kept."""
        if response.first == "reset":
            _reset(writer)
            return False
        if response.first == "never":
            await reader.read()  # until the client leaves
            return False
        if isinstance(response.first, asyncio.Event):
            await response.first.wait()
        if response.raw is not None:
            writer.write(response.raw)
        else:
            body = response.body
            writer.write(response.head(len(body)))
            writer.write(body[: len(body) // 2] if response.then in {"cut", "hang"} else body)
        await writer.drain()
        if response.then in {"drip", "flood"}:
            piece = b"x" * 4096 if response.then == "drip" else response.body
            while True:
                writer.write(piece)
                await writer.drain()
                self.sent_bytes += len(piece)
        if response.then == "hang":
            await reader.read()
        if response.then == "reset":
            _reset(writer)
        return response.then == "keep"


def _bind(port: int) -> socket.socket:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    place.bind(("127.0.0.1", port))
    return place


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST instead of a FIN."""
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (x.partition(":") for x in lines))
    request = Request(method, path, headers, b"", connection)
    if request.value("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(request.value("Content-Length") or 0))
    return Request(method, path, headers, body, connection)
