"""The scan of a bulk response finds what a parser finds, or nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.bodies.bulk_items import items_with_errors
from pixelfast.deliver.destinations.elasticsearch import ElasticsearchSender
from pixelfast.deliver.http.responses import Response
from pixelfast.deliver.outcomes import Outcome, Retry

SENDER = ElasticsearchSender(
    ElasticsearchDestination(name="e", url="https://es.example.com", index="pixels")
)
ACCEPTED: dict[str, Any] = {"status": 201}
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
        "type": st.sampled_from(["document_parsing_exception", "index_closed_exception", "x"]),
        "reason": st.lists(WORDS, max_size=6).map("".join),
    },
    optional={"caused_by": st.dictionaries(WORDS, st.lists(WORDS, max_size=3), max_size=2)},
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


@given(ITEMS)
def test_items_are_found_with_their_status_and_error(items: list[dict[str, Any]]) -> None:
    expected = [
        (n, each["status"], orjson.dumps(each["error"]))
        for n, each in enumerate(items)
        if "error" in each
    ]
    assert expected == items_with_errors(body_of(items), len(items))


@given(ITEMS, st.data())
def test_a_response_means_the_same_whether_it_is_scanned_or_parsed(
    items: list[dict[str, Any]], data: st.DataObject
) -> None:
    body = bytearray(body_of(items))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"}", b"]", b",", b"7", b"\xff", b" "])
        )
    parsed = b" " + bytes(body)  # white space is for the parser
    assert items_with_errors(parsed, len(items)) is None
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
    ],
)
def test_anything_else_is_left_to_the_parser(body: bytes) -> None:
    assert items_with_errors(body, 1) is None
