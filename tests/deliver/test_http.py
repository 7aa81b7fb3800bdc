"""The requests of an HTTP destination: bodies, headers, authentication, connections."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pixelfast import __version__
from pixelfast.config import HttpDestination
from pixelfast.deliver.batches import Batch, BatchLimits, some_events
from pixelfast.deliver.destinations.http import http_sender
from pixelfast.deliver.http.sender import EventsRejected, HttpSender
from pixelfast.deliver.outcomes import Accepted, Partial, Rejected
from tests.deliver.running import run
from tests.deliver.senders import batch, destination_and_sender, send, using
from tests.deliver.spools import event
from tests.fake_destination import FakeDestination, FakeResponse, Request

AWKWARD = [{"p": "a\nb\u2028\u2029\r"}, {"p": "],["}, {"p": "ü€"}]


def request_of(settings: dict[str, Any], events: list[bytes] | None = None) -> Request:
    """Return the only request that a destination with these settings gets."""

    async def main() -> Request:
        async with FakeDestination() as destination:
            sender = http_sender(HttpDestination(name="hook", url=destination.url, **settings))
            async with using(sender):
                assert Accepted() == await sender.send(batch(events or [event(1), event(2)]))
            (request,) = destination.requests
            return request

    return run(main())


@pytest.mark.parametrize(
    ("form", "kind", "body"),
    [
        ("json_array", "application/json", b'[{"n":1,"p":""},{"n":2,"p":""}]'),
        ("ndjson", "application/x-ndjson", b'{"n":1,"p":""}\n{"n":2,"p":""}\n'),
    ],
)
def test_a_batch_is_one_request_of_its_format(form: str, kind: str, body: bytes) -> None:
    request = request_of({"format": form})
    assert ("POST", "/hook", body) == (request.method, request.path, request.body)
    headers = {name.lower(): value for name, value in request.headers}
    headers.pop("host")
    assert headers.pop("webhook-timestamp").isdigit()
    assert {
        "content-type": kind,
        "content-length": str(len(body)),
        "user-agent": f"pixelfast/{__version__}",
        "accept": "*/*",
        "webhook-id": "b1",
        "x-pixelfast-attempt": "1",
    } == headers
    assert 8 == len(request.headers)


def test_the_format_single_sends_one_request_per_event() -> None:
    async def main() -> None:
        async with destination_and_sender(form="single") as (destination, sender):
            assert Accepted() == await send(sender, 1, 2, 3)
            bodies = sorted(request.body for request in destination.requests)
            assert [event(1), event(2), event(3)] == bodies
            kinds = {request.value("Content-Type") for request in destination.requests}
            assert {"application/json"} == kinds

    run(main())


@pytest.mark.parametrize("form", ["json_array", "ndjson"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_events_with_any_content_arrive_unchanged(form: str, is_ascii: bool) -> None:
    lines = [json.dumps(each, ensure_ascii=is_ascii).encode() for each in AWKWARD]
    assert AWKWARD == request_of({"format": form}, lines).events()


@pytest.mark.parametrize("form", ["json_array", "ndjson", "single"])
def test_gzip_compresses_the_body_and_sets_content_encoding(form: str) -> None:
    plain = request_of({"format": form}, [event(1, padding=500)])
    packed = request_of({"format": form, "gzip": True}, [event(1, padding=500)])
    assert "gzip" == packed.value("Content-Encoding")
    assert plain.body == gzip.decompress(packed.body)
    assert len(packed.body) < len(plain.body)
    assert str(len(packed.body)) == packed.value("Content-Length")
    assert plain.value("Content-Encoding") is None


def test_a_batch_has_the_same_bytes_on_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers recognize a retry by its bytes; gzip would add the time."""

    def clock() -> Iterator[float]:
        now_s = 1_000_000_000.0
        while True:
            yield (now_s := now_s + 100.0)

    monkeypatch.setattr(gzip, "time", SimpleNamespace(time=clock().__next__))

    async def main() -> None:
        async with destination_and_sender([FakeResponse(503)], gzip=True) as (destination, sender):
            for _ in range(2):
                await send(sender, 1, 2)
            first, second = destination.requests
            assert first.body == second.body

    run(main())


def test_configured_headers_are_added() -> None:
    request = request_of({"headers": {"X-Api-Key": "abc", "X-Other": "1"}})
    assert ("abc", "1") == (request.value("X-Api-Key"), request.value("X-Other"))
    assert "application/json" == request.value("Content-Type")


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_a_configured_header_replaces_the_default_in_any_case(name: str) -> None:
    request = request_of({"headers": {name: "application/cloudevents-batch+json"}})
    assert ["application/cloudevents-batch+json"] == request.values("Content-Type")


@pytest.mark.parametrize("name", ["User-Agent", "user-agent"])
def test_a_configured_user_agent_replaces_the_default(name: str) -> None:
    assert ["mine"] == request_of({"headers": {name: "mine"}}).values("User-Agent")


@pytest.mark.parametrize(
    ("username", "password"), [("u", "p"), ("u", None), ("u", "a:b:c"), ("ü", "pä€ss"), ("u", " ")]
)
def test_basic_authentication(username: str, password: str | None) -> None:
    request = request_of({"username": username, "password": password})
    kind, _, packed = str(request.value("Authorization")).partition(" ")
    assert ("Basic", f"{username}:{password or ''}") == (kind, base64.b64decode(packed).decode())


def test_bearer_authentication() -> None:
    request = request_of({"bearer_token": "t0ken"})
    assert "Bearer t0ken" == request.value("Authorization")


def test_without_credentials_there_is_no_authorization_header() -> None:
    assert request_of({}).value("Authorization") is None


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
@pytest.mark.parametrize("settings", [{"username": "u", "password": "p"}, {"bearer_token": "t"}])
def test_a_configured_authorization_header_takes_precedence(
    name: str, settings: dict[str, str]
) -> None:
    request = request_of({"headers": {name: "Custom 1"}, **settings})
    assert ["Custom 1"] == request.values("Authorization")


def test_the_sender_has_the_limits_and_pauses_of_its_settings() -> None:
    sender = http_sender(
        HttpDestination(
            name="hook",
            url="http://127.0.0.1:1/",
            max_events=7,
            max_bytes=70_000,
            max_age_s=0.7,
            retry_first_s=0.07,
            retry_most_s=7.0,
            concurrency=3,
        )
    )
    assert 3 == sender.concurrency
    assert BatchLimits(7, 70_000, 0.7) == sender.limits
    assert (0.07, 7.0) == (sender.retry_first_s, sender.retry_most_s)


def test_the_default_limits_are_those_of_the_design() -> None:
    sender = http_sender(HttpDestination(name="hook", url="http://127.0.0.1:1/"))
    assert BatchLimits(500, 2**20, 1.0) == sender.limits
    assert (0.5, 60.0) == (sender.retry_first_s, sender.retry_most_s)


def test_the_path_and_the_query_of_the_url_are_kept() -> None:
    async def main() -> None:
        async with FakeDestination() as destination:
            url = f"http://127.0.0.1:{destination.port}/a%20b/c?key=x%2By&z=1"
            async with using(HttpSender(url, "ndjson", BatchLimits(1, 1, 1.0))) as sender:
                await send(sender, 1)
            assert "/a%20b/c?key=x%2By&z=1" == destination.requests[0].path

    run(main())


def test_batches_are_sent_over_one_keep_alive_connection() -> None:
    async def main() -> None:
        async with destination_and_sender() as (destination, sender):
            for n in range(10):
                assert Accepted() == await send(sender, n)
            assert [1] * 10 == [request.connection for request in destination.requests]

    run(main())


def test_a_rejection_keeps_the_connection_open() -> None:
    async def main() -> None:
        script = [
            FakeResponse(503),
            FakeResponse(400, body=b"x" * 60_000),
            FakeResponse(204, body=b""),
        ]
        async with destination_and_sender(script) as (destination, sender):
            for n in range(4):
                await send(sender, n)
            assert [1] * 4 == [request.connection for request in destination.requests]

    run(main())


def test_a_connection_that_the_destination_closes_is_replaced() -> None:
    async def main() -> None:
        script = [FakeResponse(headers=(("Connection", "close"),), then="close")] * 3
        async with destination_and_sender(script) as (destination, sender):
            for n in range(3):
                assert Accepted() == await send(sender, n)
            assert [1, 2, 3] == [request.connection for request in destination.requests]

    run(main())


def test_cookies_are_not_stored() -> None:
    async def main() -> None:
        script = [FakeResponse(headers=(("Set-Cookie", "session=1; Path=/"),))]
        async with FakeDestination(script) as destination:
            # By name, because cookies of addresses are never stored.
            url = f"http://localhost:{destination.port}/"
            async with using(HttpSender(url, "ndjson", BatchLimits(1, 1, 1.0))) as sender:
                for n in range(2):
                    assert Accepted() == await send(sender, n)
            assert destination.requests[1].value("Cookie") is None

    run(main())


def test_closing_a_sender_closes_its_connections_and_allows_reopening() -> None:
    async def main() -> None:
        async with destination_and_sender() as (destination, sender):
            await send(sender, 1)
            await sender.close()
            await destination.until(lambda: destination.open_connections == 0)
            await sender.open({})
            assert Accepted() == await send(sender, 2)
            assert 2 == destination.connections

    run(main())


def test_closing_a_sender_that_was_never_opened_is_allowed() -> None:
    run(HttpSender("http://127.0.0.1:1/", "ndjson", BatchLimits(1, 1, 1.0)).close())


def test_the_rest_of_a_batch_has_the_sources_of_its_events() -> None:
    sources = ["web", "mail", "web", "shop"]
    rejected = {1: Rejected("unwanted")}
    sent: list[list[str]] = []

    class Choosy(HttpSender):
        def body_of(self, batch: Batch) -> bytes:
            sent.append(batch.sources())
            if batch.events == len(sources):
                raise EventsRejected(rejected)
            return super().body_of(batch)

    async def main() -> None:
        whole = some_events([event(n) for n in range(4)], sources, range(4))
        async with FakeDestination() as destination:
            async with using(
                Choosy(destination.url, "json_array", BatchLimits(9, 9999, 1.0))
            ) as sender:
                assert Partial.of(rejected) == await sender.send(whole)
            assert [0, 2, 3] == [each["n"] for each in json.loads(destination.requests[0].body)]

    run(main())
    assert [sources, ["web", "web", "shop"]] == sent
