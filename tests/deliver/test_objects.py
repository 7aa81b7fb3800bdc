"""The names and contents of objects."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import arro3.io
import pytest

from pixelfast.deliver.objects.encodings import encoding_of
from pixelfast.deliver.objects.partitions import Partition, partitions
from tests.deliver.stores import batch_for, received, unpacked

HOUR = Partition("web", "2026-11-27T08")
PLAIN = received(1)
COLUMNS = (
    *("message_id", "received_at", "timestamp", "type", "event", "name", "user_id"),
    *("anonymous_id", "group_id", "request_ip", "json"),
)


def by_partition(events: list[tuple[str, bytes]]) -> dict[Partition, list[bytes]]:
    found = partitions(batch_for(events))
    return {each: b"".join(pieces).split(b"\n")[:-1] for each, pieces in found.items()}


def test_events_are_grouped_by_source_and_hour_in_their_order() -> None:
    events = [
        ("web", received(1, "2026-11-27T08:59:59.999Z")),
        ("web", received(2, "2026-11-27T09:00:00.000Z")),
        ("mail", received(3, "2026-11-27T09:00:00.000Z")),
        ("web", received(4, "2026-11-27T08:59:59.999Z")),
        ("web", received(5, "2026-11-28T00:00:00.000Z")),
    ]
    expected = {
        Partition("web", "2026-11-27T08"): [events[0][1], events[3][1]],
        Partition("web", "2026-11-27T09"): [events[1][1]],
        Partition("mail", "2026-11-27T09"): [events[2][1]],
        Partition("web", "2026-11-28T00"): [events[4][1]],
    }
    assert expected == by_partition(events)


def test_only_the_time_of_the_server_decides_about_the_partition() -> None:
    event = received(
        1, properties={"receivedAt": "2001-01-01T00:00:00.000Z"}, sentAt="2002-01-01T00:00:00.000Z"
    )
    assert {HOUR: [event]} == by_partition([("web", event)])


@pytest.mark.parametrize(
    "event",
    [
        b'{"receivedAt":"../../../etc"}',
        b'{"receivedAt":"2026-11-27 08:00"}',
        b'{"receivedAt":"\xd9\xa2026-11-27T08:00"}',
        b'{"receivedAt":7}',
        b"{}",
        b"[]",
        b"not JSON",
        b'{"receivedAt":"\xff"}',
    ],
)
def test_an_event_without_a_valid_time_is_in_the_first_hour_of_1970(event: bytes) -> None:
    assert {Partition("web", "1970-01-01T00"): [event]} == by_partition([("web", event)])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("web_2-b", "web_2-b"),
        ("a/../b", "a%2F%2E%2E%2Fb"),
        ("..", "%2E%2E"),
        ("é =", "%C3%A9%20%3D"),
        ("", "%00"),
    ],
)
def test_the_name_of_a_source_is_one_segment_of_a_path(source: str, expected: str) -> None:
    name = Partition(source, "2026-11-27T08").object_name("b1", ".ndjson")
    assert f"source={expected}/date=2026-11-27/hour=08/b1.ndjson" == name


def encoded(form: str, compression: str, *events: bytes) -> bytes:
    pieces = partitions(batch_for(("web", event) for event in events))[HOUR]
    return encoding_of(form, compression).encode(pieces)


def test_compressed_ndjson_is_the_same_as_without_compression() -> None:
    events = [received(n, note="\u2028é") for n in range(3)]
    plain = encoded("ndjson", "none", *events)
    assert [json.loads(each) for each in events] == [json.loads(x) for x in plain.splitlines()]
    assert plain == unpacked(encoded("ndjson", "gzip", *events), "gzip")
    assert plain == unpacked(encoded("ndjson", "zstd", *events), "zstd")
    assert 3 == len(plain.decode().splitlines()), "no reader sees other lines"


def test_many_events_are_all_in_one_object() -> None:
    events = [received(n, note="\u2028é" * 1000) for n in range(2000)]
    plain = encoded("ndjson", "none", *events)
    assert [json.loads(each) for each in events] == [json.loads(x) for x in plain.splitlines()]
    assert "\u2028".encode() not in plain
    assert plain == unpacked(encoded("ndjson", "gzip", *events), "gzip")


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_the_same_events_have_the_same_bytes(form: str, compression: str) -> None:
    events = [received(n) for n in range(9000)]
    assert encoded(form, compression, *events) == encoded(form, compression, *events)


def rows_of(file: bytes, *names: str) -> list[dict[str, Any]]:
    """Return the rows of a file, with some columns or all."""
    names = names or COLUMNS
    table = arro3.io.read_parquet(io.BytesIO(file)).read_all()
    assert COLUMNS == tuple(table.column_names)
    columns = {name: table.column(name).to_pylist() for name in names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_parquet_has_columns_and_the_complete_event(compression: str) -> None:
    event = received(
        7,
        type="track",
        userId="u7",
        anonymousId="a7",
        groupId="g",
        timestamp="2026-11-27T09:00:00.123+02:00",
        request_ip="192.0.2.1",
        properties={"price": 29.99, "x": ["é", None]},
    )
    (row,) = rows_of(encoded("parquet", compression, event))
    assert row == {
        "message_id": "m7",
        "received_at": datetime(2026, 11, 27, 8, tzinfo=UTC),
        "timestamp": datetime(2026, 11, 27, 7, 0, 0, 123_000, tzinfo=UTC),
        "type": "track",
        "event": "Email Opened",
        "name": None,
        "user_id": "u7",
        "anonymous_id": "a7",
        "group_id": "g",
        "request_ip": "192.0.2.1",
        "json": event.decode(),
    }


def test_parquet_has_all_rows_in_the_order_of_the_events() -> None:
    events = [received(n) for n in range(20_000)]
    rows = rows_of(encoded("parquet", "zstd", *events))
    assert events == [row["json"].encode() for row in rows]
    assert [f"m{n}" for n in range(20_000)] == [row["message_id"] for row in rows]


HOSTILE = {
    "a number": {"userId": 7},
    "a huge number": {"userId": 10**400},
    "an object": {"userId": {"a": [1]}},
    "null": {"userId": None},
    "a time out of range": {"timestamp": "99999-01-01T00:00:00Z"},
    "the first year": {"timestamp": "0001-01-01T00:00:00+14:00"},
    "the last year": {"timestamp": "9999-12-31T23:59:59.999Z"},
    "a time without an offset": {"timestamp": "2026-11-27T08:00:00"},
    "a time that is not a string": {"timestamp": [7]},
    "control characters": {"userId": "\u0000\u0007\u2028", "event": "\u0000"},
    "a long string": {"event": "e" * 100_000},
    "quotes in a key": {'"; DROP TABLE events; --': 1},
}


@pytest.mark.parametrize("more", HOSTILE.values(), ids=list(HOSTILE))
def test_an_event_that_does_not_fit_the_columns_is_complete_in_json(more: dict[str, Any]) -> None:
    events = [received(1), received(2, **more), received(3)]
    rows = rows_of(encoded("parquet", "zstd", *events), "message_id", "json")
    assert events == [row["json"].encode() for row in rows]
    assert ["m1", "m2", "m3"] == [row["message_id"] for row in rows]


def test_a_lone_surrogate_and_deep_nesting_are_complete_in_json() -> None:
    deep = b"[" * 2000 + b"]" * 2000
    events = [
        b'{"messageId":"m1","receivedAt":"2026-11-27T08:00:00.000Z","userId":"\\ud800"}',
        b'{"messageId":"m2","receivedAt":"2026-11-27T08:00:00.000Z","properties":%s}' % deep,
        b'{"messageId":"m3","receivedAt":"2026-11-27T08:00:00.000Z","n":1e400,"n":-0}',
    ]
    pieces = [memoryview(b"".join(each + b"\n" for each in events))]
    rows = rows_of(encoding_of("parquet", "gzip").encode(pieces))
    assert events == [row["json"].encode() for row in rows]
