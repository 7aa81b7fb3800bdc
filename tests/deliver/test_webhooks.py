"""The reference library of Standard Webhooks accepts the requests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
import standardwebhooks

from pixelfast.config import HttpDestination
from pixelfast.deliver.destinations.http import http_sender
from pixelfast.deliver.http.signatures import Webhook
from pixelfast.deliver.outcomes import Accepted
from tests.deliver.clocks import HandClock
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.deliver.spools import event
from tests.fake_destination import FakeDestination, FakeResponse, Request

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 24).decode()


def requests_of(attempts: int = 1, **settings: Any) -> list[Request]:
    """Return the request that a destination with these settings gets for two events."""

    async def main() -> list[Request]:
        script = [FakeResponse(503)] * (attempts - 1)
        async with FakeDestination(script) as destination:
            sender = http_sender(HttpDestination(name="hook", url=destination.url, **settings))
            async with using(sender):
                for attempt in range(1, attempts + 1):
                    events = [event(1), '{"p":"ü€"}'.encode()]
                    outcome = await sender.send(batch(events, "b1", attempt))
                assert Accepted() == outcome
            return destination.requests

    return run(main())


def is_taken(request: Request, secret: str) -> bool:
    """Return whether the library of Standard Webhooks accepts a request."""
    try:
        events = standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))
    except standardwebhooks.WebhookVerificationError:
        return False
    assert json.loads(request.body) == events
    return True


@pytest.mark.parametrize("form", ["json_array", "single"])
def test_a_signed_request_is_accepted_by_the_library(form: str) -> None:
    for request in requests_of(format=form, signing_secrets=(OLD,)):
        assert is_taken(request, OLD)
        assert not is_taken(request, OTHER)


def test_during_a_rotation_receivers_with_either_secret_accept_a_request() -> None:
    (request,) = requests_of(signing_secrets=(OLD, NEW))
    assert [True, True, False] == [is_taken(request, each) for each in (OLD, NEW, OTHER)]
    assert 2 == len(str(request.value("webhook-signature")).split(" "))


@pytest.mark.parametrize("change", ["body", "webhook-id", "webhook-timestamp"])
def test_a_modified_request_is_not_accepted(change: str) -> None:
    (request,) = requests_of(signing_secrets=(OLD,))
    headers = dict(request.headers)
    body = request.body
    if change == "body":
        body = body.replace(b"1", b"2")
    else:
        headers[change] = headers[change][:-1] + "x" if change == "webhook-id" else "1"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OLD).verify(body, headers)


def test_a_compressed_body_is_signed_as_it_is_sent() -> None:
    """The library accepts only strings, so this is checked as the specification says."""
    (request,) = requests_of(gzip=True, signing_secrets=(OLD,))
    stamp = request.value("webhook-timestamp")
    signed = f"b1.{stamp}.".encode() + request.body
    digest = hmac.new(b"o" * 24, signed, hashlib.sha256).digest()
    assert "v1," + base64.b64encode(digest).decode() == request.value("webhook-signature")
    assert request.body != request.plain_body


def test_attempts_have_one_id_and_are_counted() -> None:
    first, second, third = requests_of(attempts=3)
    assert ["b1"] * 3 == [each.value("webhook-id") for each in (first, second, third)]
    assert ["1", "2", "3"] == [each.value("X-Pixelfast-Attempt") for each in (first, second, third)]


def test_without_a_secret_there_is_no_signature() -> None:
    (request,) = requests_of()
    assert request.value("webhook-signature") is None
    assert str(request.value("webhook-timestamp")).isdigit()


def test_a_retry_has_its_own_timestamp() -> None:
    hand = HandClock(1_700_000_000.9)
    webhook = Webhook((OLD,), hand.clock)
    first = webhook.headers("b1", b"{}")
    hand.advance(59.2)
    second = webhook.headers("b1", b"{}")
    stamps = [each["webhook-timestamp"] for each in (first, second)]
    assert ["1700000000", "1700000060"] == stamps
    assert first["webhook-signature"] != second["webhook-signature"]


def test_headers_of_webhooks_are_not_replaced_by_configured_ones() -> None:
    (request,) = requests_of(headers={"Webhook-Id": "mine", "x-pixelfast-attempt": "9"})
    assert ["b1"] == request.values("webhook-id")
    assert ["1"] == request.values("x-pixelfast-attempt")
