"""The meaning of HTTP responses, and limits on their effects."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from pixelfast.config import (
    ClickhouseDestination,
    ElasticsearchDestination,
    PosthogDestination,
)
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.clickhouse import ClickhouseSender
from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender
from pixelfast.deliver.destinations.posthog import PosthogSender
from pixelfast.deliver.http.responses import Response
from pixelfast.deliver.http.sender import HttpSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Rejected, Retry
from tests.deliver.products.events import tracked
from tests.deliver.running import run
from tests.deliver.senders import LIMITS, QUICK, batch, destination_and_sender, send, using
from tests.deliver.spools import event
from tests.fake_destination import FakeDestination, FakeResponse, Request

ANSWER_LIMIT = 64 * 1024
EMPTY = b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_every_2xx_is_accepted(status: int) -> None:
    async def main() -> None:
        body = b"" if status == 204 else b"thanks"
        async with destination_and_sender([FakeResponse(status, body=body)]) as (_, sender):
            assert Accepted() == await send(sender, 1)

    run(main())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (300, Held),
        (304, Held),
        (400, Rejected),
        (401, Held),
        (403, Held),
        (404, Held),
        (408, Retry),
        (409, Held),
        (413, Rejected),
        (422, Rejected),
        (425, Retry),
        (429, Retry),
        (500, Retry),
        (501, Held),
        (503, Retry),
        (599, Retry),
    ],
)
def test_no_other_status_is_accepted(status: int, outcome: type) -> None:
    async def main() -> None:
        body = b"" if status == 304 else b"no"
        async with destination_and_sender([FakeResponse(status, body=body)]) as (_, sender):
            got = await send(sender, 1)
            assert outcome is type(got)
            assert (f"status {status}", status, body) == (got.reason, got.status, got.response)  # type: ignore[union-attr]
            assert Accepted() == await send(sender, 1)

    run(main())


def test_status_413_makes_batches_smaller_and_410_ends_requests() -> None:
    async def main() -> None:
        async with destination_and_sender([FakeResponse(413), FakeResponse(410)]) as (_, sender):
            assert Rejected("status 413", 413, b"ok", is_too_large=True) == await send(sender, 1)
            assert Held("status 410", 410, b"ok", is_final=True) == await send(sender, 1)

    run(main())


def test_the_first_kilobyte_of_a_response_is_kept() -> None:
    async def main() -> None:
        script = [FakeResponse(400, body=b"x" * 1000 + b"y" * 1000)]
        async with destination_and_sender(script) as (_, sender):
            outcome = await send(sender, 1)
            assert isinstance(outcome, Rejected)
            assert b"x" * 1000 + b"y" * 24 == outcome.response

    run(main())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    async def main() -> None:
        headers = (("Location", "/elsewhere"),)
        async with destination_and_sender([FakeResponse(status, headers)]) as (destination, sender):
            assert Held(f"status {status}", status, b"ok") == await send(sender, 1)
            assert ["/hook"] == [request.path for request in destination.requests]

    run(main())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("999999", 3600.0), ("soon", 0.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_part_of_the_outcome(status: int, text: str, seconds: float) -> None:
    async def main() -> None:
        script = [FakeResponse(status, (("Retry-After", text),))]
        async with destination_and_sender(script) as (_, sender):
            assert Retry(f"status {status}", seconds, status, b"ok") == await send(sender, 1)

    run(main())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    ],
)
def test_an_interim_response_is_ignored(head: bytes) -> None:
    async def main() -> None:
        good = FakeResponse(raw=head + b"HTTP/1.1 204 No Content\r\n\r\n")
        bad = FakeResponse(raw=head + b"HTTP/1.1 500 No\r\n" + EMPTY)
        async with destination_and_sender([good, bad]) as (_, sender):
            assert Accepted() == await send(sender, 1)
            assert Retry("status 500", status=500) == await send(sender, 1)

    run(main())


def test_endless_interim_responses_are_not_a_response() -> None:
    async def main() -> None:
        script = [FakeResponse(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 100)]
        async with destination_and_sender(script, timeouts=QUICK) as (_, sender):
            assert isinstance(await send(sender, 1), Retry)

    run(main())


def test_switching_protocols_is_not_accepted() -> None:
    async def main() -> None:
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        async with destination_and_sender([FakeResponse(raw=head)], timeouts=QUICK) as (_, sender):
            assert isinstance(await send(sender, 1), Held)
            assert Accepted() == await send(sender, 1)

    run(main())


@pytest.mark.parametrize("then", ["cut", "reset", "close"])
def test_a_response_that_breaks_off_after_status_200_is_accepted(then: str) -> None:
    async def main() -> None:
        script = [FakeResponse(body=b"x" * 10_000, then=then)]  # type: ignore[arg-type]
        async with destination_and_sender(script) as (destination, sender):
            assert Accepted() == await send(sender, 1)
            await destination.until(lambda: destination.open_connections == 0)
            assert Accepted() == await send(sender, 2)

    run(main())


@pytest.mark.parametrize("then", ["cut", "reset"])
def test_a_response_that_breaks_off_after_status_500_is_retried(then: str) -> None:
    async def main() -> None:
        script = [FakeResponse(500, body=b"x" * 10_000, then=then)]  # type: ignore[arg-type]
        async with destination_and_sender(script) as (_, sender):
            assert isinstance(await send(sender, 1), Retry)

    run(main())


def test_a_response_that_hangs_after_status_200_is_accepted_at_the_timeout() -> None:
    async def main() -> None:
        script = [FakeResponse(body=b"x" * 1000, then="hang")]
        async with destination_and_sender(script, timeouts=QUICK) as (destination, sender):
            assert Accepted() == await send(sender, 1)
            await destination.until(lambda: destination.open_connections == 0)

    run(main())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Accepted()), (500, Retry("status 500", 0.0, 500, b"ok" + b"x" * 1022))],
)
def test_an_endless_response_is_read_up_to_its_limit(status: int, outcome: object) -> None:
    async def main() -> None:
        script = [FakeResponse(status, then="drip")]
        async with destination_and_sender(script) as (destination, sender):
            assert outcome == await send(sender, 1)
            await destination.until(lambda: destination.open_connections == 0)
            # The rest was in the buffers of both sockets and of the client.
            assert destination.sent_bytes < ANSWER_LIMIT + 16 * 2**20
            assert Accepted() == await send(sender, 2)

    run(main())


def test_a_response_of_a_gigabyte_is_not_read() -> None:
    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"
        script = [FakeResponse(raw=head, then="drip")]
        async with destination_and_sender(script) as (destination, sender):
            assert Accepted() == await send(sender, 1)
            await destination.until(lambda: destination.open_connections == 0)
            assert destination.sent_bytes < ANSWER_LIMIT + 16 * 2**20

    run(main())


@pytest.mark.parametrize(("size", "connections"), [(ANSWER_LIMIT, 1), (64 * ANSWER_LIMIT, 2)])
def test_a_long_response_within_the_limit_is_read_to_its_end(size: int, connections: int) -> None:
    async def main() -> None:
        script = [FakeResponse(body=b"x" * size)]
        async with destination_and_sender(script) as (destination, sender):
            for n in range(2):
                assert Accepted() == await send(sender, n)
            assert connections == destination.connections

    run(main())


def test_a_compressed_response_is_not_decompressed() -> None:
    """A small response must not become a large one."""

    async def main() -> None:
        headers = (("Content-Encoding", "gzip"),)
        script = [FakeResponse(200, headers, b"no gzip")]
        async with destination_and_sender(script) as (destination, sender):
            for n in range(2):
                assert Accepted() == await send(sender, n)
            assert 1 == destination.connections, "nothing was wrong with the response"

    run(main())


NONSENSE = [
    b"garbage\r\n\r\n",
    b"\0" * 100,
    b"<html>",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n" + EMPTY,
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"HTTP/1.1 500 No\r\nRetry-After: \xff\xfe\r\n" + EMPTY,
    b"HTTP/1.1 500 No\r\nRetry-After: Mon, 23 Nov 99999999999 10:00:00 GMT\r\n" + EMPTY,
    b"HTTP/1.1 302 F\r\nLocation: http://\xff[\r\n" + EMPTY,
    b"HTTP/1.1 000 No\r\n" + EMPTY,
    b"",
]


@pytest.mark.parametrize("raw", NONSENSE, ids=lambda raw: repr(raw[:40]))
def test_invalid_responses_are_neither_accepted_nor_raised(raw: bytes) -> None:
    async def main() -> None:
        script = [FakeResponse(raw=raw, then="close")]
        async with destination_and_sender(script) as (_, sender):
            outcome = await send(sender, 1)
            assert isinstance(outcome, Retry | Held)
            # It is logged, and part of the status.
            assert len(outcome.reason) <= 1024
            assert "\n" not in outcome.reason

    run(main())


@pytest.mark.parametrize(
    "response",
    [
        FakeResponse(503),
        FakeResponse(first="reset"),
        FakeResponse(first="never"),
        FakeResponse(raw=b"garbage\r\n\r\n"),
        FakeResponse(raw=b"", then="close"),
    ],
)
def test_a_reason_does_not_contain_the_query_of_the_url(response: FakeResponse) -> None:
    """Many webhooks have their secret there, and reasons are logged."""

    async def main() -> None:
        async with FakeDestination([response]) as destination:
            url = f"{destination.url}?token=s3cret"
            async with using(HttpSender(url, "ndjson", LIMITS, timeouts=QUICK)) as sender:
                outcome = await send(sender, 1)
            assert isinstance(outcome, Retry)
            assert "s3cret" not in outcome.reason

    run(main())


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\n\r\nthanks",
        b"HTTP/1.1 200\r\n" + EMPTY,
        b"HTTP/1.1 200 \xff\xfe\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nContent-Type: ;;;\r\nSet-Cookie: a\x01=;;\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nRetry-After: 100\r\n" + EMPTY,
    ],
)
def test_an_unusual_200_is_accepted(raw: bytes) -> None:
    async def main() -> None:
        async with destination_and_sender([FakeResponse(raw=raw, then="close")]) as (_, sender):
            assert Accepted() == await send(sender, 1)

    run(main())


def test_concurrent_batches_have_separate_outcomes() -> None:
    async def main() -> None:
        statuses = {0: 200, 1: 400, 2: 503, 3: 404}

        def script(request: Request) -> FakeResponse:
            return FakeResponse(statuses[request.events()[0]["n"]], body=b"")

        async with destination_and_sender(script) as (_, sender):
            outcomes = await asyncio.gather(*(send(sender, n % 4) for n in range(40)))
            assert [
                Accepted(),
                Rejected("status 400", 400),
                Retry("status 503", status=503),
                Held("status 404", 404),
            ] * 10 == outcomes

    run(main())


class FaultySender(HttpSender):
    """Fails for an event that requests it, or for every response."""

    is_judge_faulty = False

    def body_of(self, batch: Batch) -> bytes:
        if b"faulty" in batch.ndjson():
            raise KeyError("messageId")
        return super().body_of(batch)

    def judge(self, response: Response, batch: Batch) -> Outcome:
        if self.is_judge_faulty:
            raise RecursionError("too deep")
        return super().judge(response, batch)


def test_an_error_while_judging_a_response_is_an_outcome() -> None:
    async def main() -> None:
        async with (
            FakeDestination() as destination,
            using(FaultySender(destination.url, "ndjson", LIMITS)) as sender,
        ):
            assert isinstance(sender, FaultySender)
            sender.is_judge_faulty = True
            with capture_logs() as logs:
                assert Retry("internal error: RecursionError") == await send(sender, 1)
            assert [("send_failed", True)] == [(x["event"], x["exc_info"]) for x in logs]
            sender.is_judge_faulty = False
            assert Accepted() == await send(sender, 1)

    run(main())


def test_an_event_that_cannot_be_encoded_is_rejected_and_logged_when_it_is_found() -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            async with using(FaultySender(destination.url, "ndjson", LIMITS)) as sender:
                with capture_logs() as logs:
                    for events in ([b'{"a":"faulty"}', event(1)], [b'{"a":"faulty"}']):
                        rejected = Rejected("cannot be encoded: KeyError")
                        assert rejected == await sender.send(batch(events))
                assert ["event_not_encoded"] == [each["event"] for each in logs]
                assert Accepted() == await send(sender, 1)
            assert [event(1) + b"\n"] == [request.body for request in destination.requests]

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65536,
        b'{"a":' * 13_000,
        b'{"quota_limited":' + b"[" * 60_000,
        b'{"quota_limited":' + b"9" * 60_000 + b"}",
        b'{"quota_limited":1e999999999}',
        b'{"quota_limited":{"events":1}}',
        b"[" + b'"quota_limited",' * 4_000 + b"1]",
        b"quota_limited\xff",
        b"",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_every_body_of_a_response_results_in_an_outcome(body: bytes) -> None:
    async def main() -> None:
        async with FakeDestination(lambda _: FakeResponse(body=body)) as destination:
            url = f"http://127.0.0.1:{destination.port}"
            for sender in (
                PosthogSender(PosthogDestination(name="d", url=url, api_key="k")),
                ElasticsearchSender(ElasticsearchDestination(name="d", url=url, index="i")),
                ClickhouseSender(ClickhouseDestination(name="d", url=url, table="t")),
            ):
                with capture_logs() as logs:
                    async with using(sender):
                        assert isinstance(await sender.send(batch([tracked(1)])), Accepted | Retry)
                assert [] == logs

    run(main())
