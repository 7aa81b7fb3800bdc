"""An HTTP destination that is not there, hangs, or breaks off: always an outcome, in time."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import closing

import aiohttp
import pytest

from pixelfast.deliver.http.failures import outcome_of_failure
from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Accepted, Rejected, Retry
from tests.deliver.running import run
from tests.deliver.senders import LIMITS, QUICK, destination_and_sender, send, using
from tests.deliver.spools import batch_of, event
from tests.fake_destination import Answer, FakeDestination
from tests.listener import Listener


def test_no_answer_in_time_is_tried_again() -> None:
    async def main() -> None:
        script = [Answer(first="never")]
        async with destination_and_sender(script, timeouts=QUICK) as (destination, sender):
            began_s = time.monotonic()
            assert Retry("no response within 0.3 s") == await send(sender, 1)
            assert 0.25 <= time.monotonic() - began_s < 3.0
            await destination.until(lambda: destination.open_connections == 0)
            assert Accepted() == await send(sender, 1)

    run(main())


def test_half_an_answer_is_no_answer() -> None:
    async def main() -> None:
        script = [Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then="hang")]
        async with destination_and_sender(script, timeouts=QUICK) as (_, sender):
            assert isinstance(await send(sender, 1), Retry)

    run(main())


def test_a_connection_that_never_comes_about_has_its_own_bound() -> None:
    async def main() -> None:
        with closing(socket.socket()) as deaf, closing(socket.socket()) as waiting:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            waiting.connect(deaf.getsockname())  # takes the one place of the queue
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
            timeouts = Timeouts(total_s=15.0, connect_s=0.3)
            async with using(HttpSender(url, "ndjson", LIMITS, timeouts=timeouts)) as sender:
                began_s = time.monotonic()
                outcome = await send(sender, 1)
                assert isinstance(outcome, Retry)
                assert time.monotonic() - began_s < 5.0
                assert outcome.reason != "no response within 15 s", "it waited for 0.3 s"

    run(main())


def test_a_connection_that_breaks_off_without_an_answer_is_tried_again() -> None:
    async def main() -> None:
        script = [Answer(first="reset"), Answer(raw=b"", then="close"), Answer(first="reset")]
        async with destination_and_sender(script) as (_, sender):
            for _ in range(3):
                assert isinstance(await send(sender, 1), Retry)
            assert Accepted() == await send(sender, 1)

    run(main())


def test_a_refused_connection_is_tried_again() -> None:
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
        # What aiohttp 3.14 raises where a connection goes while it writes.
        aiohttp.ClientOSError(32, "Can not write request body for http://x/?token=s3cret"),
        aiohttp.ClientOSError(None, "Can not write request body for http://x/?token=s3cret"),
        aiohttp.ClientConnectionError("Failed to send bytes: http://x/?token=s3cret"),
        aiohttp.InvalidURL("http://x/?token=s3cret"),
    ],
)
def test_no_reason_holds_what_a_library_says_of_the_url(error: aiohttp.ClientError) -> None:
    outcome = outcome_of_failure(error, 30.0, 5.0)
    assert "s3cret" not in outcome.reason
    assert outcome.reason


def test_a_name_that_nobody_has_is_tried_again() -> None:
    async def main() -> None:
        url = "http://nosuchhost.invalid/hook"
        async with using(HttpSender(url, "ndjson", LIMITS, timeouts=Timeouts(5.0, 5.0))) as sender:
            assert isinstance(await send(sender, 1), Retry)

    run(main())


def test_a_destination_that_went_away_and_came_back_is_reached_again() -> None:
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


def test_a_server_of_tls_is_not_spoken_to_in_clear_text_and_the_other_way_round() -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            url = destination.url.replace("http:", "https:")
            async with using(HttpSender(url, "ndjson", LIMITS, timeouts=QUICK)) as sender:
                assert isinstance(await send(sender, 1), Retry)
            assert [] == destination.requests

    run(main())


def test_a_large_body_that_is_refused_unread_is_an_outcome() -> None:
    """The destination answers 413 to the head and closes while the body is on its way."""

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


def test_a_send_that_is_cancelled_leaves_no_connection_behind() -> None:
    async def main() -> None:
        async with destination_and_sender([Answer(first="never")]) as (destination, sender):
            sending = asyncio.ensure_future(send(sender, 1))
            await destination.received(1)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await destination.until(lambda: destination.open_connections == 0)
            assert Accepted() == await send(sender, 2)

    run(main())
