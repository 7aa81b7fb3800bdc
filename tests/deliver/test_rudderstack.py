"""The requests to a RudderStack data plane."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pixelfast.config import RudderstackDestination
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.destinations.rudderstack import RudderstackSender
from pixelfast.deliver.outcomes import Accepted, Retry
from tests.deliver.running import run
from tests.deliver.senders import using
from tests.deliver.spools import batch_of, event
from tests.fake_destination import FakeDestination, FakeResponse, Request


def request_of(suffix: str = "", **settings: Any) -> Request:
    async def main() -> Request:
        async with FakeDestination() as destination:
            url = f"http://127.0.0.1:{destination.port}{suffix}"
            sender = RudderstackSender(
                RudderstackDestination(name="rudder", url=url, write_key="wk_1", **settings)
            )
            async with using(sender):
                assert Accepted() == await sender.send(batch_of([event(1), event(2)]))
            (request,) = destination.requests
            return request

    return run(main())


def test_a_batch_is_a_post_request_with_the_events_in_an_object() -> None:
    request = request_of()
    assert ("POST", "/v1/batch") == (request.method, request.path)
    assert b'{"batch":[{"n":1,"p":""},{"n":2,"p":""}]}' == request.body
    assert "application/json" == request.value("Content-Type")


@pytest.mark.parametrize(
    ("suffix", "path"),
    [("/", "/v1/batch"), ("//", "/v1/batch"), ("/dp", "/dp/v1/batch"), ("/dp/", "/dp/v1/batch")],
)
def test_the_path_of_the_url_is_kept(suffix: str, path: str) -> None:
    assert path == request_of(suffix).path


def test_the_write_key_is_the_user_name_of_basic_authentication() -> None:
    kind, _, packed = str(request_of().value("Authorization")).partition(" ")
    assert ("Basic", b"wk_1:") == (kind, base64.b64decode(packed))


def test_the_body_is_compressed_by_gzip() -> None:
    request = request_of(gzip=True)
    assert "gzip" == request.value("Content-Encoding")
    assert 2 == len(json.loads(request.plain_body)["batch"])


def test_the_limits_are_below_those_of_the_servers() -> None:
    sender = RudderstackSender(
        RudderstackDestination(name="rudder", url="http://127.0.0.1:1", write_key="wk_1")
    )
    assert BatchLimits(1000, 1_900_000, 1.0) == sender.limits
    assert (0.5, 60.0) == (sender.retry_first_s, sender.retry_most_s)


def test_a_failed_request_is_retried_with_the_same_bytes() -> None:
    async def main() -> None:
        async with FakeDestination([FakeResponse(429, (("Retry-After", "3"),))]) as destination:
            url = f"http://127.0.0.1:{destination.port}"
            settings = RudderstackDestination(name="rudder", url=url, write_key="wk_1")
            batch = batch_of([event(1)])
            async with using(RudderstackSender(settings)) as sender:
                assert Retry("status 429", 3.0, 429, b"ok") == await sender.send(batch)
                assert Accepted() == await sender.send(batch)
            first, second = destination.requests
            assert first.body == second.body

    run(main())


def test_a_full_batch_is_sent_without_a_warning() -> None:
    """aiohttp warns of bodies above 1 MiB that are passed as bytes."""

    async def main() -> None:
        async with FakeDestination() as destination:
            url = f"http://127.0.0.1:{destination.port}"
            settings = RudderstackDestination(name="rudder", url=url, write_key="wk_1")
            async with using(RudderstackSender(settings)) as sender:
                events = [event(n, padding=30_000) for n in range(60)]
                assert Accepted() == await sender.send(batch_of(events))
            assert list(range(60)) == [each["n"] for each in destination.events()]

    run(main())
