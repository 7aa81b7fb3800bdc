"""HTTP destinations that are down, hang or close the connection: each attempt has an outcome."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import aiohttp
import pytest

from pixelfast.deliver.http.failures import outcome_of_failure
from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Accepted, Rejected, Retry
from tests.deliver.running import run
from tests.deliver.senders import LIMITS, QUICK, destination_and_sender, send, using
from tests.deliver.spools import batch_of, event
from tests.fake_destination import FakeDestination, FakeResponse
from tests.listener import Listener


def test_a_request_without_a_response_in_time_is_retried() -> None:
    async def main() -> None:
        script = [FakeResponse(first="never")]
        async with destination_and_sender(script, timeouts=QUICK) as (destination, sender):
            assert Retry("no response within 0.3 s") == await send(sender, 1)
            await destination.until(lambda: destination.open_connections == 0)
            assert Accepted() == await send(sender, 1)

    run(main())


def test_an_incomplete_response_is_retried() -> None:
    async def main() -> None:
        script = [FakeResponse(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then="hang")]
        async with destination_and_sender(script, timeouts=QUICK) as (_, sender):
            assert Retry("no response within 0.3 s") == await send(sender, 1)

    run(main())


def test_connecting_has_a_timeout_of_its_own() -> None:
    async def main() -> None:
        with closing(socket.socket()) as deaf, closing(socket.socket()) as waiting:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            waiting.connect(deaf.getsockname())  # fills the queue of connections
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            timeouts = Timeouts(total_s=1000.0, connect_s=0.3)
            async with using(HttpSender(url, "ndjson", LIMITS, timeouts=timeouts)) as sender:
                assert Retry("no connection within 0.3 s") == await send(sender, 1)

    run(main())


def test_a_connection_that_is_closed_without_a_response_is_retried() -> None:
    async def main() -> None:
        script = [
            FakeResponse(first="reset"),
            FakeResponse(raw=b"", then="close"),
            FakeResponse(first="reset"),
        ]
        async with destination_and_sender(script) as (_, sender):
            for _ in range(3):
                assert isinstance(await send(sender, 1), Retry)
            assert Accepted() == await send(sender, 1)

    run(main())


def test_a_refused_connection_is_retried() -> None:
    async def main() -> None:
        async with (
            FakeDestination(is_up=False) as destination,
            using(HttpSender(destination.url, "ndjson", LIMITS)) as sender,
        ):
            outcome = await send(sender, 1)
            assert isinstance(outcome, Retry)
            assert str(destination.port) in outcome.reason
            await destination.go_up()
            assert Accepted() == await send(sender, 1)

    run(main())


@pytest.mark.parametrize(
    "error",
    [
        # What aiohttp 3.14 raises if a connection is lost while it writes.
        aiohttp.ClientOSError(32, "Can not write request body for http://x/?token=s3cret"),
        aiohttp.ClientOSError(None, "Can not write request body for http://x/?token=s3cret"),
        aiohttp.ClientConnectionError("Failed to send bytes: http://x/?token=s3cret"),
        aiohttp.InvalidURL("http://x/?token=s3cret"),
    ],
)
def test_a_reason_never_contains_the_url_that_a_library_quotes(error: aiohttp.ClientError) -> None:
    outcome = outcome_of_failure(error, 30.0, 5.0)
    assert "s3cret" not in outcome.reason
    assert outcome.reason


def test_an_unknown_host_name_is_retried() -> None:
    async def main() -> None:
        url = "http://nosuchhost.invalid/hook"
        async with using(HttpSender(url, "ndjson", LIMITS, timeouts=Timeouts(5.0, 5.0))) as sender:
            assert isinstance(await send(sender, 1), Retry)

    run(main())


def test_a_destination_that_was_down_is_reached_when_it_is_up() -> None:
    async def main() -> None:
        async with destination_and_sender() as (destination, sender):
            assert Accepted() == await send(sender, 1)
            await destination.go_down()
            for _ in range(2):
                assert isinstance(await send(sender, 2), Retry)
            await destination.go_up()
            assert Accepted() == await send(sender, 2)
            assert [1, 2] == [each["n"] for each in destination.events()]

    run(main())


def test_tls_to_a_server_without_tls_fails_before_a_request_is_sent() -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            url = destination.url.replace("http:", "https:")
            async with using(HttpSender(url, "ndjson", LIMITS, timeouts=QUICK)) as sender:
                assert isinstance(await send(sender, 1), Retry)
            assert [] == destination.requests

    run(main())


def test_a_large_body_that_is_rejected_unread_has_an_outcome() -> None:
    """The destination responds 413 to the head and closes while the body is being sent."""

    async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        listener = Listener(reject)
        url = f"http://127.0.0.1:{await listener.open()}/"
        try:
            async with using(HttpSender(url, "ndjson", LIMITS)) as sender:
                large = batch_of([event(n, padding=9_900) for n in range(100)])
                for _ in range(3):
                    assert isinstance(await sender.send(large), Retry | Rejected)
        finally:
            await listener.close()

    run(main())


def test_a_cancelled_request_closes_its_connection() -> None:
    async def main() -> None:
        async with destination_and_sender([FakeResponse(first="never")]) as (destination, sender):
            sending = asyncio.ensure_future(send(sender, 1))
            await destination.received(1)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await destination.until(lambda: destination.open_connections == 0)
            assert Accepted() == await send(sender, 2)

    run(main())
