"""The cost of responses is limited, and data without a request is not used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from aiohttp.client_proto import ResponseHandler

from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected, Retry
from tests.deliver.running import run
from tests.deliver.senders import LIMITS, QUICK, batch, destination_and_sender, send, using
from tests.deliver.spools import event
from tests.fake_destination import FakeResponse
from tests.listener import Listener

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TOO_MANY = Retry("more than 8 interim responses (1xx)")
TOO_LONG = Retry("the response is longer than 81,920 bytes")
INVALID = Retry("the response is not valid HTTP")
SOCKET_BUFFERS = 16 * 2**20

# The beginning of a flood, the repeated data, and the outcome. If the status was received, the
# destination has the batch, which is then not retried.
FLOODS: dict[str, tuple[bytes, bytes, Outcome]] = {
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", TOO_MANY),
    "102": (b"", b"HTTP/1.1 102\r\n\r\n", TOO_MANY),
    "103 with headers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", TOO_MANY),
    "199": (b"", b"HTTP/1.1 199 X\r\n\r\n", TOO_MANY),
    "line feeds": (b"", b"\r\n", TOO_LONG),
    "headers": (HEAD, b"a: b\r\n", INVALID),
    "cookies": (HEAD, b"Set-Cookie: a=b\r\n", INVALID),
    "one header": (HEAD + b"a: ", b"b", INVALID),
    "folded header": (HEAD + b"a: b\r\n", b" c\r\n", INVALID),
    "reason": (b"HTTP/1.1 200 ", b"x", INVALID),
    "garbage": (b"", b"\0", INVALID),
    "body": (HEAD + b"\r\n", b"x", Accepted()),
    "body of a 500": (b"HTTP/1.1 500 No\r\n\r\n", b"x", Retry("", 0.0, 500, b"x" * 1024)),
    "body of a 400": (b"HTTP/1.1 400 No\r\n\r\n", b"x", Rejected("", 400, b"x" * 1024)),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n", Accepted()),
    "chunk extension": (CHUNKED + b"1;", b"a=b;", Accepted()),
    "chunk size": (CHUNKED, b"0", Accepted()),
    "wrong chunk size": (CHUNKED + b"1\r\nx\r\n", b"f", INVALID),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n", Accepted()),
    "responses": (EMPTY, EMPTY, Accepted()),
    "responses without content": (b"", b"HTTP/1.1 204 No\r\n\r\n", Accepted()),
    "packed": (HEAD + b"Content-Encoding: gzip\r\n\r\n", b"\x1f\x8b\x08\0", Accepted()),
}


def without_reason(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Retry | Rejected) and outcome.status:
        return type(outcome)("", status=outcome.status, response=outcome.response)
    return outcome


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all pieces that were passed to the parser of responses."""
    sizes: list[int] = []
    receive = ResponseHandler.data_received

    def counted(handler: ResponseHandler, data: bytes) -> None:
        sizes.append(len(data))
        receive(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counted)
    return sizes


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_dropped_and_the_next_request_gets_its_own_response(
    name: str, parsed: list[int]
) -> None:
    begin, unit, outcome = FLOODS[name]
    flood = FakeResponse(raw=begin, body=unit * (16384 // len(unit)), then="flood")

    async def main() -> None:
        async with destination_and_sender([flood, FakeResponse(503)]) as (destination, sender):
            assert outcome == without_reason(await send(sender, 1))
            await destination.until(lambda: destination.open_connections == 0)
            assert sum(parsed) <= 81_921, "no more than the limit was parsed"
            assert max(parsed) <= 4096, "and never much without a look at the limits"
            assert destination.sent_bytes < SOCKET_BUFFERS
            assert Retry("status 503", status=503, response=b"ok") == await send(sender, 2)
            assert 2 == destination.connections

    run(main())


def test_an_endless_flood_of_interim_responses_ends_with_the_ninth(parsed: list[int]) -> None:
    """A read of 64 KiB has 4,000 of them, and nothing else happens meanwhile."""

    async def main() -> None:
        unit = b"HTTP/1.1 100\r\n\r\n"
        flood = FakeResponse(raw=unit * 4000, then="flood", body=unit)
        async with destination_and_sender([flood]) as (_, sender):
            assert TOO_MANY == await send(sender, 1)
        assert sum(parsed) <= 512

    run(main())


@pytest.mark.parametrize(("interim", "outcome"), [(8, Accepted()), (9, TOO_MANY)])
@pytest.mark.parametrize("is_slow", [False, True])
def test_eight_interim_responses_are_ignored(interim: int, outcome: Outcome, is_slow: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(interim):
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            if is_slow:
                await writer.drain()
                await asyncio.sleep(0.001)  # a slow server: the next one arrives by itself
        writer.write(EMPTY)
        await reader.read()

    async def main() -> None:
        async with serving(serve) as url, using(HttpSender(url, "ndjson", LIMITS)) as sender:
            assert outcome == await send(sender, 1)

    run(main())


@pytest.mark.parametrize("name", ["100", "body", "responses", "headers"])
def test_floods_on_all_connections_at_once_are_dropped(name: str, parsed: list[int]) -> None:
    begin, unit, outcome = FLOODS[name]
    flood = FakeResponse(raw=begin, body=unit * (4096 // len(unit)), then="flood")

    async def main() -> None:
        async with destination_and_sender(lambda _: flood) as (destination, sender):
            outcomes = await asyncio.gather(*(send(sender, n) for n in range(64)))
            assert [outcome] * 64 == outcomes
            await destination.until(lambda: destination.open_connections == 0)
        assert sum(parsed) <= 64 * 81_921
        assert max(parsed) <= 4096

    run(main())


# --- data without a request -------------------------------------------------------------------


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any
) -> AsyncIterator[str]:
    """A server whose connections a test handles itself; yields its URL."""

    async def bounded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, EOFError):
            pass
        finally:
            writer.transport.abort()

    listener = Listener(bounded)
    try:
        yield f"http://127.0.0.1:{await listener.open(**options)}/"
    finally:
        await listener.close()


@pytest.mark.parametrize("unasked", [EMPTY, b"HTTP/1.1 100\r\n\r\n" * 5000, b"\r\n", b"x", CHUNKED])
def test_data_without_a_request_is_not_used_as_the_next_response(unasked: bytes) -> None:
    async def main() -> None:
        connections = 0
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"}\n")
            if connections > 1:
                writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                await reader.read()
                return
            writer.write(EMPTY)
            await writer.drain()
            await idle.wait()
            writer.write(unasked)
            try:
                await reader.read()
            finally:
                gone.set()

        idle = asyncio.Event()
        async with serving(serve) as url, using(HttpSender(url, "ndjson", LIMITS)) as sender:
            assert Accepted() == await send(sender, 1)
            idle.set()
            await gone.wait()
            assert Retry("status 503", status=503) == await send(sender, 2)
            assert 2 == connections

    run(main())


@pytest.mark.parametrize("status", [200, 413, 503])
def test_a_response_may_arrive_before_the_request_is_read(status: int) -> None:
    """The connection is not reused, because it may contain a part of the request."""
    expected = {
        200: Accepted(),
        413: Rejected("status 413", 413, b"", is_too_large=True),
        503: Retry("status 503", status=503),
    }

    async def main() -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            await reader.read(2**24)

        async with serving(serve) as url, using(HttpSender(url, "ndjson", LIMITS)) as sender:
            large = batch([event(n, padding=10_000) for n in range(900)])
            for _ in range(2):
                assert expected[status] == await sender.send(large)
            assert 2 == connections

    run(main())


def test_a_peer_that_never_reads_a_large_body_ends_with_a_timeout() -> None:
    async def main() -> None:
        async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        timeouts = Timeouts(0.3, 0.3)
        async with (
            serving(serve, limit=1024) as url,
            using(HttpSender(url, "ndjson", LIMITS, timeouts=timeouts)) as sender,
        ):
            large = batch([event(n, padding=10_000) for n in range(900)])
            assert Retry("no response within 0.3 s") == await sender.send(large)

    run(main())


def test_a_response_of_single_bytes_is_read_until_the_timeout() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for byte in HEAD * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)  # a slow server, which is never silent for long

        async with (
            serving(serve) as url,
            using(HttpSender(url, "ndjson", LIMITS, timeouts=QUICK)) as sender,
        ):
            assert Retry("no response within 0.3 s") == await send(sender, 1)

    run(main())


@pytest.mark.parametrize("at", [0, 1, 17, 30, 39, 58])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_response_may_break_off_anywhere(at: int, end: Literal["reset", "close"]) -> None:
    response = HEAD + b"Content-Length: 20\r\n\r\n" + b"x" * 20
    head_bytes = len(response) - 20

    async def main() -> None:
        script = [FakeResponse(raw=response[:at], then=end)]
        async with destination_and_sender(script) as (_, sender):
            outcome = await send(sender, 1)
            assert isinstance(outcome, Accepted if at >= head_bytes else Retry)
            assert Accepted() == await send(sender, 1)

    run(main())
