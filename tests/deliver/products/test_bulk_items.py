"""The scan of a bulk response finds what a parser finds, or nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.bodies.bulk_items import scan_errors
from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender
from pixelfast.deliver.http.responses import Response
from pixelfast.deliver.outcomes import Outcome, Retry

SENDER = ElasticsearchSender(
    ElasticsearchDestination(name="e", url="https://es.example.com", index="pixels")
)
ACCEPTED: dict[str, Any] = {"status": 201}
BEGINNINGS, MAX_BYTES = (b"no", b"x"), 120
WORDS = st.sampled_from(
    [
        "",
        "x",
        '"',
        "\\",
        '\\"',
        "}",
        "{",
        "]}",
        "é",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "@timestamp",
        "at [Source: x",
    ]
)
ERRORS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["document_parsing_exception", "index_closed_exception", "\\n"]),
        "reason": st.lists(WORDS, max_size=6).map("".join),
    },
    optional={
        "caused_by": st.dictionaries(WORDS, WORDS | st.dictionaries(WORDS, WORDS), max_size=2)
    },
)
ITEMS = st.lists(
    st.one_of(
        st.just(ACCEPTED),
        st.builds(
            lambda status, error: {"status": status, "error": error},
            st.sampled_from([201, 400, 404, 409, 429, 500, 503]),
            ERRORS,
        ),
    ),
    min_size=1,
    max_size=8,
)


def body_of(items: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"errors": True, "items": [{"create": each} for each in items]})


def judged(body: bytes, events: int) -> Outcome:
    outcome = SENDER.judge(Response(200, None, body), Batch(body=b"{}\n" * events, events=events))
    # Of a response that cannot be read the beginning is kept.
    return Retry(outcome.reason) if isinstance(outcome, Retry) else outcome


def scanned(body: bytes, items: int) -> object:
    return scan_errors(body, items, BEGINNINGS, MAX_BYTES)


def is_plain(error: dict[str, Any]) -> bool:
    whole = orjson.dumps(error)
    marks = (b"\\u", b"[Source: ", b"@timestamp")
    return (
        len(whole) <= MAX_BYTES
        and not any(mark in whole for mark in marks)
        and orjson.dumps(error["type"])[1:-1].decode() == error["type"]
    )


@given(ITEMS)
def test_each_error_is_found_once_with_its_status_and_meaning(items: list[dict[str, Any]]) -> None:
    found = scan_errors(body_of(items), len(items), BEGINNINGS, MAX_BYTES)
    assert found is not None
    groups, others = found
    in_groups = [
        (index, status, kind.decode(), begins, error)
        for status, kind, begins, indexes, errors in groups
        for index, error in zip(indexes, errors, strict=True)
    ]
    errors = [(n, each["status"], each["error"]) for n, each in enumerate(items) if "error" in each]
    assert sorted(in_groups) == [
        (n, status, error["type"], error["reason"].startswith("x"), orjson.dumps(error))
        for n, status, error in errors
        if is_plain(error)
    ]
    assert others == [
        (n, status, orjson.dumps(error)) for n, status, error in errors if not is_plain(error)
    ]
    assert len(groups) == len({each[1:4] for each in in_groups})


def test_errors_of_more_than_16_meanings_are_returned_one_by_one() -> None:
    items = [{"status": 400, "error": {"type": f"t{n % 20}", "reason": ""}} for n in range(40)]
    found = scan_errors(body_of(items), 40, (), MAX_BYTES)
    assert found is not None
    groups, others = found
    assert [[n, n + 20] for n in range(16)] == [indexes for _, _, _, indexes, _ in groups]
    assert [16, 17, 18, 19, 36, 37, 38, 39] == [index for index, _, _ in others]


@given(ITEMS, st.data())
def test_a_response_means_the_same_whether_it_is_scanned_or_parsed(
    items: list[dict[str, Any]], data: st.DataObject
) -> None:
    body = bytearray(body_of(items))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"}", b"]", b",", b"7", b"\xff", b" ", b":", b"null"]
            )
        )
    parsed = b" " + bytes(body)  # white space is for the parser
    assert scanned(parsed, len(items)) is None
    assert judged(parsed, len(items)) == judged(bytes(body), len(items))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"errors":true,"items":[',
        b'{"errors":true,"items":[{"create":{"status":201}}]',
        b'{"errors":true,"items":[{"create":{"status":201}}]} ',
        b'{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":201}}]}',
        b'{"errors":true,"items":[{"create":{"status":0400,"error":{}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":"no"}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"}}]}',
        b'{"errors":true,"items":[{"index":{"status":400,"error":{}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":7}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":null}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":["b"]}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"b",}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{,"a":"b"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a" :"b"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"\n"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"\\x"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"\\u12"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":{"a":"\\u123g"}}}]}',
        b'{"errors":true,"items":[{"create":{"status":400,"error":'
        + b'{"a":' * 9
        + b'"b"'
        + b"}" * 9
        + b"}}]}",
    ],
)
def test_anything_else_is_left_to_the_parser(body: bytes) -> None:
    assert scanned(body, 1) is None
