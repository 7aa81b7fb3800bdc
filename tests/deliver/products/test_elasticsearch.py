"""Elasticsearch: each event for itself, and none twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry
from tests.deliver.products.elasticsearch import Elasticsearch
from tests.deliver.products.events import message_id, tracked
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import Answer, FakeDestination, Script

WRONG = {"properties": {"number": "no long"}}


def outcomes(server: Script, *batches: Batch, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with FakeDestination(server) as destination:
            settings.setdefault("index", "events")
            url = f"http://127.0.0.1:{destination.port}/"
            sender = ElasticsearchSender(ElasticsearchDestination(name="e", url=url, **settings))
            async with using(sender):
                return [await sender.send(each) for each in batches]

    return run(main())


@pytest.mark.parametrize("gzip", [False, True])
def test_a_batch_is_stored_under_its_message_ids(gzip: bool) -> None:
    server = Elasticsearch()
    sent = batch([tracked(1), tracked(2, p="ü\n")])
    assert [Accepted()] == outcomes(server, sent, gzip=gzip)
    wanted = {message_id(n): json.loads(line) for n, line in enumerate(sent.lines(), 1)}
    assert wanted == server.documents


def test_what_exists_already_counts_as_stored() -> None:
    server = Elasticsearch()
    sent = batch([tracked(n) for n in range(10)])
    assert [Accepted()] * 2 == outcomes(server, sent, sent)
    assert 10 == len(server.documents)


def test_only_what_failed_is_told_and_what_kind_of_failure() -> None:
    server = Elasticsearch()
    server.busy = lambda each: each in {message_id(2), message_id(4)}
    events = [tracked(n, **(WRONG if n == 3 else {})) for n in range(6)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    kinds = {index: type(each) for index, each in outcome.failed.items()}
    assert {2: Retry, 3: Refused, 4: Retry} == kinds
    assert (429, 400) == (outcome.failed[2].status, outcome.failed[3].status)
    assert b"document_parsing_exception" in outcome.failed[3].answer
    assert {message_id(n) for n in (0, 1, 5)} == set(server.documents)
    server.busy = lambda _: False
    assert [Accepted()] == outcomes(server, batch([events[2], events[4]], "b2"))
    assert {message_id(n) for n in (0, 1, 2, 4, 5)} == set(server.documents)


def test_the_answer_to_a_large_batch_of_failures_is_read_whole() -> None:
    server = Elasticsearch()
    many = batch([tracked(n, **WRONG, q="x" * 100) for n in range(5000)])
    (outcome,) = outcomes(server, many)
    assert isinstance(outcome, Partial)
    assert set(range(5000)) == set(outcome.failed)


def test_an_index_that_is_not_there_or_takes_nothing_holds_it() -> None:
    server = Elasticsearch()
    (outcome,) = outcomes(server, batch([tracked(1)]), index="other")
    assert isinstance(outcome, Held)
    assert (404, "item: status 404") == (outcome.status, outcome.reason)
    server.is_read_only = True
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Held)
    assert b"cluster_block_exception" in outcome.answer


@pytest.mark.parametrize(
    ("server", "settings"),
    [
        ({"api_key": "a2V5"}, {"api_key": "a2V5"}),
        ({"user": "elastic:p:w"}, {"username": "elastic", "password": "p:w"}),
    ],
)
def test_both_kinds_of_credentials(server: dict[str, str], settings: dict[str, str]) -> None:
    sent = batch([tracked(1)])
    assert [Accepted()] == outcomes(Elasticsearch(**server), sent, **settings)
    (outcome,) = outcomes(Elasticsearch(**server), sent, api_key="wr0ng")
    assert isinstance(outcome, Held)
    assert 401 == outcome.status


def test_a_body_that_is_too_large_asks_for_less() -> None:
    (outcome,) = outcomes(Elasticsearch(most_bytes=500), batch([tracked(1), tracked(2)]))
    assert isinstance(outcome, Refused)
    assert outcome.is_too_large


@pytest.mark.parametrize("given", ["x" * 513, "ü" * 300, "", None, 5, {"a": 1}])
def test_an_event_whose_id_can_be_none_has_another_that_stays(given: object) -> None:
    server = Elasticsearch()
    sent = batch([tracked(1, messageId=given)])
    assert [Accepted()] * 2 == outcomes(server, sent, sent)
    assert 1 == len(server.documents)


@pytest.mark.parametrize("given", ["x" * 512, 'a"b\\c\n', "ü" * 256])
def test_any_other_id_is_the_documents(given: str) -> None:
    server = Elasticsearch()
    assert [Accepted()] == outcomes(server, batch([tracked(1, messageId=given)]))
    assert [given] == list(server.documents)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b"null",
        b'{"errors":true}',
        b'{"errors":true,"items":[]}',
        b'{"errors":true,"items":[{"create":{"status":201}}]}',
        b'{"errors":true,"items":[{"create":{"status":"x"}},{"create":{"status":201}}]}',
        b'{"errors":true,"items":[{},{}]}',
        b'{"errors":true,"items":[5,5]}',
        b'{"errors":true,"items":[{"create":5},{"create":5}]}',
    ],
)
def test_a_200_that_does_not_tell_of_each_event_is_none(body: bytes) -> None:
    (outcome,) = outcomes([Answer(body=body)], batch([tracked(1), tracked(2)]))
    assert isinstance(outcome, Retry)
    assert 200 == outcome.status


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    server = Elasticsearch()
    sent = batch([tracked(1), tracked(2)])
    whole = b'{"errors":false,"items":[' + b" " * 1000 + b"]}"
    (first,) = outcomes([Answer(body=whole, then="cut")], sent)
    assert isinstance(first, Retry)
    assert [Accepted()] == outcomes(server, sent)
