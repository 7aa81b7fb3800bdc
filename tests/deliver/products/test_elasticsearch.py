"""Elasticsearch: each event has its own outcome, and none is stored twice."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from tests.deliver.products.elasticsearch import Elasticsearch
from tests.deliver.products.events import message_id, tracked
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import FakeDestination, FakeResponse, Script

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


def test_existing_documents_count_as_stored() -> None:
    server = Elasticsearch()
    sent = batch([tracked(n) for n in range(10)])
    assert [Accepted()] * 2 == outcomes(server, sent, sent)
    assert 10 == len(server.documents)


def test_only_failed_events_are_reported_with_the_kind_of_failure() -> None:
    server = Elasticsearch()
    server.busy = lambda each: each in {message_id(2), message_id(4)}
    events = [tracked(n, **(WRONG if n == 3 else {})) for n in range(6)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    kinds = {index: type(each) for index, each in outcome.failed.items()}
    assert {2: Retry, 3: Rejected, 4: Retry} == kinds
    assert (429, 400) == (outcome.failed[2].status, outcome.failed[3].status)
    assert b"document_parsing_exception" in outcome.failed[3].response
    assert {message_id(n) for n in (0, 1, 5)} == set(server.documents)
    server.busy = lambda _: False
    assert [Accepted()] == outcomes(server, batch([events[2], events[4]], "b2"))
    assert {message_id(n) for n in (0, 1, 2, 4, 5)} == set(server.documents)


def test_the_response_to_a_large_batch_of_failures_is_read_completely() -> None:
    server = Elasticsearch()
    many = batch([tracked(n, **WRONG, q="x" * 100) for n in range(5000)])
    (outcome,) = outcomes(server, many)
    assert isinstance(outcome, Partial)
    assert set(range(5000)) == set(outcome.failed)


def test_a_missing_or_read_only_index_holds_the_destination() -> None:
    server = Elasticsearch()
    (outcome,) = outcomes(server, batch([tracked(1)]), index="other")
    assert isinstance(outcome, Held)
    assert (404, "status 404, index_not_found_exception") == (outcome.status, outcome.reason)
    server.is_read_only = True
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Held)
    assert b"cluster_block_exception" in outcome.response


@pytest.mark.parametrize(
    ("server", "settings"),
    [
        ({"api_key": "a2V5"}, {"api_key": "a2V5"}),
        ({"user": "elastic:p:w"}, {"username": "elastic", "password": "p:w"}),
    ],
)
def test_both_kinds_of_credentials_are_sent(
    server: dict[str, Any], settings: dict[str, str]
) -> None:
    sent = batch([tracked(1)])
    assert [Accepted()] == outcomes(Elasticsearch(**server), sent, **settings)
    (outcome,) = outcomes(Elasticsearch(**server), sent, api_key="wr0ng")
    assert isinstance(outcome, Held)
    assert 401 == outcome.status


def test_a_body_that_is_too_large_makes_batches_smaller() -> None:
    (outcome,) = outcomes(Elasticsearch(max_bytes=500), batch([tracked(1), tracked(2)]))
    assert isinstance(outcome, Rejected)
    assert outcome.is_too_large


@pytest.mark.parametrize("given", ["x" * 513, "ü" * 300, "", None, 5, {"a": 1}])
def test_an_event_without_a_usable_id_has_a_constant_replacement(given: object) -> None:
    server = Elasticsearch()
    sent = batch([tracked(1, messageId=given)])
    assert [Accepted()] * 2 == outcomes(server, sent, sent)
    assert 1 == len(server.documents)


@pytest.mark.parametrize("given", ["x" * 512, 'a"b\\c\n', "ü" * 256])
def test_any_other_id_is_the_id_of_the_document(given: str) -> None:
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
        b'{"errors":true,"items":[' + b"[" * 20_000,
        b'{"errors":true,"items":['
        + b'{"create":{"status":400,"error":{"type":"x","caused_by":' * 2_000,
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":'
        + b"[" * 2_000
        + b"]" * 2_000
        + b'}}},{"create":{"status":201}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"reason":"\xff"}}},'
        b'{"create":{"status":201}}]}',
    ],
)
def test_a_200_without_a_status_for_each_event_is_not_an_acceptance(body: bytes) -> None:
    (outcome,) = outcomes([FakeResponse(body=body)], batch([tracked(1), tracked(2)]))
    assert isinstance(outcome, Retry)
    assert 200 == outcome.status


def test_a_response_that_breaks_off_is_retried() -> None:
    server = Elasticsearch()
    sent = batch([tracked(1), tracked(2)])
    whole = b'{"errors":false,"items":[' + b" " * 1000 + b"]}"
    (first,) = outcomes([FakeResponse(body=whole, then="cut")], sent)
    assert isinstance(first, Retry)
    assert [Accepted()] == outcomes(server, sent)


def failing(status: int, *causes: tuple[str, str]) -> FakeResponse:
    """A response to one event with an error and its causes."""
    error: dict[str, Any] = {}
    for kind, reason in reversed(causes):
        error = {"type": kind, "reason": reason} | ({"caused_by": error} if error else {})
    item = {"create": {"status": status, "error": error}}
    return FakeResponse(body=json.dumps({"errors": True, "items": [item]}).encode())


def test_documents_are_repaired_and_the_others_keep_their_bytes() -> None:
    server = Elasticsearch()
    plain = tracked(1, p=1.50)
    assert [Accepted()] == outcomes(server, batch([plain, tracked(2, _id="x", **{"": 1})]))
    assert json.loads(plain) == server.documents[message_id(1)]
    repaired = server.documents[message_id(2)]
    assert ("x", 1) == (repaired["field__id"], repaired["field_"])
    assert not repaired.keys() & {"_id", ""}


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "index_closed_exception", "closed"),
        (400, "invalid_index_name_exception", "Invalid index name [Bad], must be lowercase"),
        (400, "illegal_argument_exception", "no write index is defined for alias [t]. The"),
        (400, "illegal_argument_exception", "pipeline with id [p] does not exist"),
        (400, "illegal_argument_exception", "Alias [t] has more than one indices"),
        (400, "validation_exception", "Validation Failed: 1: this action would add [2] shards"),
        (400, "routing_missing_exception", "routing is required for [t]/[_doc]/[1]"),
        (429, "cluster_block_exception", "index [t] blocked by: [TOO_MANY_REQUESTS/12/disk]"),
        (403, "cluster_block_exception", "index [t] blocked by: [FORBIDDEN/8/index write]"),
        (403, "security_exception", "action is unauthorized"),
        (404, "index_not_found_exception", "no such index [t]"),
    ],
)
def test_an_error_of_the_settings_holds_for_an_item_or_the_request(
    status: int, kind: str, reason: str
) -> None:
    whole = {"error": {"type": kind, "reason": reason, "root_cause": []}, "status": status}
    script = [
        failing(status, (kind, reason)),
        FakeResponse(status, body=json.dumps(whole).encode()),
    ]
    for outcome in outcomes(script, batch([tracked(1)]), batch([tracked(1)])):
        assert isinstance(outcome, Held)
        assert (status, f"status {status}, {kind}") == (outcome.status, outcome.reason)
        assert reason in outcome.response.decode()


@pytest.mark.parametrize(
    ("status", "kind", "reason", "wanted"),
    [
        (400, "mapper_parsing_exception", "pipeline with id of an event", Rejected),
        (400, "illegal_argument_exception", "mapper [pipeline with id [x]] cannot be", Rejected),
        (400, "illegal_argument_exception", "Limit of total fields [1000] has been", Rejected),
        (400, "strict_dynamic_mapping_exception", "mapping set to strict", Rejected),
        (400, "document_parsing_exception", "[1:2] failed to parse", Rejected),
        (429, "es_rejected_execution_exception", "queue is full", Retry),
        (429, "circuit_breaking_exception", "Data too large", Retry),
        (503, "cluster_block_exception", "no master", Retry),
        (503, "unavailable_shards_exception", "primary shard is not active", Retry),
        (500, "null_pointer_exception", "", Retry),
    ],
)
def test_any_other_error_rejects_or_retries_the_event(
    status: int, kind: str, reason: str, wanted: type
) -> None:
    (outcome,) = outcomes([failing(status, (kind, reason))], batch([tracked(1)]))
    assert isinstance(outcome, Partial)
    assert wanted is type(outcome.failed[0])
    assert f"status {status}, {kind}" == outcome.failed[0].reason


@pytest.mark.parametrize(
    "reason",
    [
        "data stream timestamp field [@timestamp] is missing",
        "documents must contain a single-valued timestamp field '@timestamp' of date type",
    ],
)
def test_a_data_stream_without_timestamps_holds_but_not_for_an_event_that_has_one(
    reason: str,
) -> None:
    response = failing(
        400, ("mapper_parsing_exception", "failed to parse"), ("illegal_argument_exception", reason)
    )
    without, given = outcomes(
        [response] * 2, batch([tracked(1)]), batch([tracked(1, **{"@timestamp": ["a", "b"]})])
    )
    assert isinstance(without, Held)
    assert isinstance(given, Partial)


def test_the_cause_is_kept_without_the_request_that_it_quotes() -> None:
    quoted = '(byte[])"POST /events/_bulk HTTP/1.1\r\nAuthorization: ApiKey c2VjcmV0'
    response = failing(
        400,
        ("mapper_parsing_exception", "Preview of field's value: '" + "\x01x" * 20_000),
        ("json_parse_exception", f"not numeric\n at [Source: {quoted}"),
        ("some_exception", "the end of it"),
    )
    (outcome,) = outcomes([response], batch([tracked(1)]))
    assert isinstance(outcome, Partial)
    kept = outcome.failed[0].response.decode()
    assert len(kept.encode()) <= 1024
    assert '"reason":"not numeric"' in kept
    assert "the end of it" in kept
    assert "Authorization" not in kept


@pytest.mark.parametrize(("status", "kind"), [(200, Retry), (400, Rejected), (500, Retry)])
def test_credentials_that_a_response_quotes_are_not_kept(status: int, kind: type) -> None:
    body = b'oops\n at [Source: (byte[])"POST / HTTP/1.1\r\nAuthorization: Basic dTpw'
    (outcome,) = outcomes([FakeResponse(status, body=body)], batch([tracked(1)]))
    assert kind is type(outcome)
    assert b"oops" == getattr(outcome, "response", None)


@pytest.mark.parametrize(("events", "is_in_thread"), [(1, False), (200, True)])
def test_a_long_response_is_judged_outside_the_loop(
    monkeypatch: pytest.MonkeyPatch, events: int, is_in_thread: bool
) -> None:
    judges: list[bool] = []
    judge = ElasticsearchSender.judge

    def watched(self: ElasticsearchSender, *given: Any) -> Outcome:
        judges.append(threading.current_thread() is not threading.main_thread())
        return judge(self, *given)

    monkeypatch.setattr(ElasticsearchSender, "judge", watched)
    (outcome,) = outcomes(Elasticsearch(), batch([tracked(n, **WRONG) for n in range(events)]))
    assert isinstance(outcome, Partial)
    assert [is_in_thread] == judges


def test_a_response_that_is_too_long_halves_the_batch_without_dead_letters() -> None:
    item = {"create": {"status": 400, "error": {"type": "t", "reason": "x" * 30_000}}}
    long = FakeResponse(
        body=json.dumps({"errors": True, "items": [item] * 9}, separators=(",", ":")).encode()
    )
    nine = batch([tracked(n) for n in range(9)])
    first, second = outcomes([long] * 2, nine, batch([tracked(1)]), max_events=9)
    assert isinstance(first, Rejected)
    assert not first.is_too_large
    assert isinstance(second, Retry)
    noise = FakeResponse(body=b"<html>" + b"x" * 300_000)
    (outcome,) = outcomes([noise], nine, max_events=9)
    assert isinstance(outcome, Retry)
