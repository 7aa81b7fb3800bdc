"""Segment and RudderStack: batches within the limits, and the meaning of responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pixelfast.config import RudderstackDestination, SegmentDestination
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.destinations.rudderstack import RudderstackSender
from pixelfast.deliver.destinations.segment import segment_sender
from pixelfast.deliver.http.sender import HttpSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Rejected
from tests.deliver.products.events import message_id, page, tracked
from tests.deliver.products.segment import BatchApi
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import FakeDestination

KINDS = ["segment", "rudderstack"]


def sender_of(kind: str, url: str, write_key: str = "wk_1", **more: Any) -> HttpSender:
    if kind == "segment":
        return segment_sender(SegmentDestination(name="s", url=url, write_key=write_key, **more))
    return RudderstackSender(RudderstackDestination(name="r", url=url, write_key=write_key, **more))


def api_of(kind: str) -> BatchApi:
    if kind == "segment":
        return BatchApi()
    return BatchApi(max_bytes=4_000_000, is_rudderstack=True)


def outcomes(kind: str, api: BatchApi, *batches: Batch, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with FakeDestination(api) as destination:
            url = f"http://127.0.0.1:{destination.port}"
            async with using(sender_of(kind, url, **settings)) as sender:
                return [await sender.send(each) for each in batches]

    return run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gzip", [False, True])
def test_a_batch_is_taken(kind: str, gzip: bool) -> None:
    api = api_of(kind)
    sent = batch([tracked(1), page(2)])
    assert [Accepted()] == outcomes(kind, api, sent, gzip=gzip)
    assert [json.loads(line) for line in sent.lines()] == list(api.events.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_batch_is_the_same(kind: str) -> None:
    api = api_of(kind)
    sent = batch([tracked(n) for n in range(10)])
    assert [Accepted()] * 2 == outcomes(kind, api, sent, sent)
    assert [message_id(n) for n in range(10)] == list(api.events)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_configurable_batch_is_accepted(kind: str) -> None:
    sender = sender_of(kind, "http://127.0.0.1:1")
    api = api_of(kind)
    padding = "x" * (sender.limits.max_bytes // sender.limits.max_events - 320)
    many = [tracked(n, context={"userAgent": padding}) for n in range(sender.limits.max_events)]
    while sum(map(len, many)) + len(many) > sender.limits.max_bytes:
        many.pop()
    assert sum(map(len, many)) > 0.95 * sender.limits.max_bytes
    assert [Accepted()] == outcomes(kind, api, batch(many))
    assert len(many) == len(api.events)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_above_its_limit_rejects_the_batch(kind: str) -> None:
    """The whole batch is rejected, so it is divided until the bad event is found."""
    api = api_of(kind)
    large = tracked(2, context={"userAgent": "x" * 33_000})
    (outcome,) = outcomes(kind, api, batch([tracked(1), large]))
    assert isinstance(outcome, Rejected)
    assert (400, False) == (outcome.status, outcome.is_too_large)
    assert b"32 KB" in outcome.response
    assert {} == api.events
    assert Accepted() == outcomes(kind, api, batch([tracked(1)]))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_above_its_limit_is_rejected(kind: str) -> None:
    api = api_of(kind)
    api.max_bytes = 1000
    (outcome,) = outcomes(kind, api, batch([tracked(n) for n in range(10)]))
    assert isinstance(outcome, Rejected)


def test_a_wrong_write_key_holds_rudderstack() -> None:
    api = api_of("rudderstack")
    (outcome,) = outcomes("rudderstack", api, batch([tracked(1)]), write_key="wk_wrong")
    assert isinstance(outcome, Held)
    assert 401 == outcome.status
    assert "wk_wrong" not in outcome.reason


@pytest.mark.parametrize("kind", KINDS)
def test_products_get_no_webhook_headers(kind: str) -> None:
    async def main() -> None:
        async with FakeDestination(api_of(kind)) as destination:
            url = f"http://127.0.0.1:{destination.port}"
            async with using(sender_of(kind, url)) as sender:
                await sender.send(batch([tracked(1)], "b1", 3))
            names = {name.lower() for name, _ in destination.requests[0].headers}
            assert [] == [name for name in names if name.startswith("webhook")]
            assert "3" == destination.requests[0].value("X-Pixelfast-Attempt")

    run(main())


def test_the_limits_of_segment_are_below_those_of_its_documentation() -> None:
    settings = SegmentDestination(name="s", write_key="k")
    assert BatchLimits(500, 475_000, 1.0) == segment_sender(settings).limits
    assert "https://api.segment.io/v1/batch" == segment_sender(settings).url
