"""PostHog: events in its format, and the meaning of its responses."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from pixelfast import __version__
from pixelfast.config import PosthogDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.posthog import PosthogSender, posthog_event
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Rejected
from tests.deliver.products.events import message_id, page, tracked
from tests.deliver.products.posthog import Posthog
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import FakeDestination

LIB = {"$lib": "pixelfast", "$lib_version": __version__}


def outcomes(server: Posthog, *batches: Batch, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with FakeDestination(server) as destination:
            settings.setdefault("api_key", "phc_1")
            url = f"http://127.0.0.1:{destination.port}/"
            sender = PosthogSender(PosthogDestination(name="p", url=url, **settings))
            async with using(sender):
                return [await sender.send(each) for each in batches]

    return run(main())


def made_of(line: bytes) -> Any:
    return posthog_event(json.loads(line))


@pytest.mark.parametrize("gzip", [False, True])
def test_a_batch_is_taken(gzip: bool) -> None:
    server = Posthog()
    assert [Accepted()] == outcomes(server, batch([tracked(1), page(2)]), gzip=gzip)
    assert ["Email Opened", "$pageview"] == [each["event"] for each in server.events.values()]


def test_a_repeated_batch_is_accepted_once() -> None:
    server = Posthog()
    sent = batch([tracked(1), tracked(2, messageId="not a uuid")])
    assert [Accepted()] * 2 == outcomes(server, sent, sent)
    assert 2 == len(server.events)


def test_a_track_event_in_the_format_of_posthog() -> None:
    assert {
        "uuid": message_id(1),
        "event": "Email Opened",
        "distinct_id": "a1",
        "timestamp": "2026-01-31T00:00:00.000Z",
        "properties": {
            **LIB,
            "number": 1,
            "$ip": "192.0.2.1",
            "anonymousId": "a1",
            "$process_person_profile": False,
        },
    } == made_of(tracked(1))


def test_a_page_event_in_the_format_of_posthog() -> None:
    context = {
        "page": {
            "url": "https://example.com/a?b=c",
            "referrer": "https://example.org/",
            "title": "A",
        },
        "userAgent": "UA",
        "locale": "en-US",
        "timezone": "Europe/Paris",
        "ip": "198.51.100.7",
        "screen": {"width": 800, "height": 600},
        "campaign": {"name": "may", "source": "news", "medium": "e-mail"},
        "os": {"name": "Linux"},
        "traits": {"plan": "free"},
    }
    made = made_of(page(1, userId="u1", context=context, traits={"age": 5}, properties={"x": 1}))
    assert ("$pageview", "u1") == (made["event"], made["distinct_id"])
    assert {
        **LIB,
        "x": 1,
        "name": "Home",
        "title": "A",
        "$current_url": "https://example.com/a?b=c",
        "$host": "example.com",
        "$pathname": "/a",
        "$referrer": "https://example.org/",
        "$raw_user_agent": "UA",
        "$locale": "en-US",
        "$timezone": "Europe/Paris",
        "$ip": "198.51.100.7",
        "$os": "Linux",
        "$screen_width": 800,
        "$screen_height": 600,
        "utm_campaign": "may",
        "utm_source": "news",
        "utm_medium": "e-mail",
        "anonymousId": "a1",
        "$set": {"plan": "free", "age": 5},
    } == made["properties"]


def test_properties_of_the_event_take_precedence() -> None:
    made = made_of(tracked(1, properties={"$ip": "203.0.113.1", "anonymousId": "mine"}))
    assert ("203.0.113.1", "mine") == (
        made["properties"]["$ip"],
        made["properties"]["anonymousId"],
    )


def test_without_an_address_the_servers_is_not_used() -> None:
    made = made_of(tracked(1, request_ip=None))
    assert made["properties"]["$geoip_disable"] is True
    assert "$ip" not in made["properties"]


@pytest.mark.parametrize("given", ["not a uuid", "", "x" * 5000, "ü"])
def test_an_id_that_is_not_a_uuid_becomes_a_constant_one(given: str) -> None:
    first, second = (made_of(tracked(1, messageId=given)) for _ in range(2))
    assert first["uuid"] == second["uuid"]
    uuid.UUID(first["uuid"])
    assert first["uuid"] != made_of(tracked(1, messageId=given + "x"))["uuid"]


@pytest.mark.parametrize(
    "more",
    [
        {"context": "text"},
        {"properties": []},
        {"context": {"page": 5, "traits": "x", "campaign": [1]}},
        {"context": {"page": {"url": "http://[", "path": 5}}},
        {"context": {"page": {"url": {"a": 1}}}},
        {"userId": 5},
        {"traits": None},
    ],
)
def test_strange_events_are_rewritten_too(more: dict[str, Any]) -> None:
    server = Posthog()
    assert [Accepted()] == outcomes(server, batch([tracked(1, **more)]))


def test_an_event_without_a_name_rejects_the_batch() -> None:
    server = Posthog()
    (outcome,) = outcomes(server, batch([tracked(1), tracked(2, event="")]))
    assert isinstance(outcome, Rejected)
    assert {} == server.events


def test_a_wrong_key_holds_the_destination_and_is_not_logged() -> None:
    (outcome,) = outcomes(Posthog(), batch([tracked(1)]), api_key="phc_wrong")
    assert isinstance(outcome, Held)
    assert (403, "status 403") == (outcome.status, outcome.reason)


def test_a_key_with_quotes_stays_one_string() -> None:
    server = Posthog(api_key='a"b\\c')
    assert [Accepted()] == outcomes(server, batch([tracked(1)]), api_key='a"b\\c')


def test_a_body_above_the_limit_makes_batches_smaller() -> None:
    (outcome,) = outcomes(Posthog(max_bytes=1000), batch([tracked(n) for n in range(10)]))
    assert isinstance(outcome, Rejected)
    assert outcome.is_too_large


def test_a_200_that_drops_events_holds_the_destination() -> None:
    server = Posthog()
    server.is_over_quota = True
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Held)
    assert "quota" in outcome.reason
    server.is_over_quota = False
    assert [Accepted()] == outcomes(server, batch([tracked(1)]))
