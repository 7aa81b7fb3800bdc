"""Hostile rows, views and retries against the real ClickHouse engine."""

# ruff: noqa: S608 - the names in queries are those of the tests

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.clickhouse import ClickhouseSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected
from pixelfast.deliver.schemas.clickhouse import create_statements
from pixelfast.spool import DataDir
from tests.deliver.products.engines import SHORT, ask, dead_letters, deliver
from tests.deliver.products.events import message_id, tracked
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.spools import open_data

WINDOW = "SETTINGS non_replicated_deduplication_window = 100"
PLAIN = "ENGINE = MergeTree ORDER BY tuple()"


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def database(clickhouse_engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new database for a test."""
    name = f"test_{abs(hash(request.node.name)):x}"
    sql(clickhouse_engine, f"CREATE DATABASE {name}")
    yield name
    sql(clickhouse_engine, f"DROP DATABASE {name}")


def sql(url: str, query: str) -> list[Any]:
    """Run a query; return the first column of its rows."""
    rows = ask(url, "POST", query)
    lines = [json.dumps(rows)] if isinstance(rows, dict) else rows.split("\n")
    return [next(iter(json.loads(line).values())) for line in lines if line]


def destination(url: str, database: str, **more: Any) -> ClickhouseDestination:
    settings = {"name": "warehouse", "url": url, "database": database, "table": "events"}
    return ClickhouseDestination(**{**settings, **SHORT, **more})


def send(settings: ClickhouseDestination, *batches: Batch) -> list[Outcome]:
    async def main() -> list[Outcome]:
        sender = ClickhouseSender(settings)
        async with using(sender):
            return [await sender.send(each) for each in batches]

    return run(main())


ROW_FAULTS = {
    "a string that is too long": ("FixedString(2)", "DE", "Germany", 131),
    "an unknown element": ("Enum8('a' = 1)", "a", "zz", 691),
    "an unknown element of an array": ("Array(Enum8('a' = 1))", ["a"], ["a", "zz"], 691),
    "text for a number": ("Int32", 1, "text", 27),
    "a negative number": ("UInt8", 1, -1, 72),
    "an object for a number": ("Int32", 1, {"a": 1}, 27),
    "a date": ("Date", "2026-01-31", "zz", 38),
    "a time": ("DateTime64(3)", "2026-01-31T00:00:00Z", "zz", 41),
    "a time out of range": ("DateTime64(9)", "2026-01-31T00:00:00Z", "9999-12-31T00:00:00Z", 407),
    "a UUID": ("UUID", message_id(1), "zz", 376),
    "an IPv4 address": ("IPv4", "192.0.2.1", "zz", 675),
    "an IPv6 address": ("IPv6", "2001:db8::1", "zz", 676),
    "a decimal": ("Decimal(9, 2)", "1.5", "99999999999999", 69),
    "a boolean": ("Bool", True, "zz", 467),
    "text for an array": ("Array(Int32)", [1], "zz", 130),
    "text for a map": ("Map(String, Int32)", {"a": 1}, "zz", 27),
    "text for JSON": ("JSON", {"a": 1}, "zz", 117),
    "a type in JSON": ("JSON(a Int32)", {"a": 1}, {"a": "zz"}, 117),
    "what quotes an error": (
        "Int32",
        1,
        "x (at row 1) Code: 497. DB::Exception: (at row 1)",
        27,
    ),
}


@pytest.mark.parametrize(("kind", "good", "bad", "code"), ROW_FAULTS.values(), ids=list(ROW_FAULTS))
def test_rows_that_cannot_be_read_are_dead_letters_alone(
    clickhouse_engine: str,
    database: str,
    data: DataDir,
    kind: str,
    good: object,
    bad: object,
    code: int,
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, value {kind}) {PLAIN} {WINDOW}",
    )
    bad_ones = {3, 4, 17, 77, 199}
    events = [tracked(n, value=bad if n in bad_ones else good) for n in range(200)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert ("healthy", 195, 5) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    stored = sql(clickhouse_engine, f"SELECT messageId FROM {database}.events")
    assert sorted(message_id(n) for n in range(200) if n not in bad_ones) == sorted(stored)
    letters = dead_letters(data, "warehouse")
    assert {message_id(n) for n in bad_ones} == {each.event["messageId"] for each in letters}
    assert all(each.reason.endswith(f", code {code}") for each in letters)
    parts = sql(
        clickhouse_engine,
        f"SELECT count() FROM system.parts WHERE database = '{database}' AND active",
    )
    assert int(parts[0]) <= 3, "the rows are inserted together"


def test_the_printed_table_accepts_every_event_of_a_pixel(
    clickhouse_engine: str, database: str, data: DataDir
) -> None:
    """Its columns are strings and times of every event, or any JSON as a string."""
    sql(clickhouse_engine, create_statements("events", database))
    deep: Any = "x"
    for n in range(32):
        deep = [deep] if n % 2 else {"a": deep}
    shapes: list[dict[str, Any]] = [
        {"properties": {}},
        {"properties": {"": 1, ".": [None, 1, {"a": "\u0001"}], "a.b": 2, "a": {"b": 1}}},
        {"properties": deep, "context": deep},
        {"context": {"q\n": "\\ \" '"}, "type": "page", "event": "e" * 30_000},
        {"messageId": "'; DROP TABLE events; --", "userId": "\ufffd\u2028\U0001f600"},
        {"properties.a": 1, "context.b": 2, "unknown": {"deep": deep}},
        *(
            {"timestamp": each, "receivedAt": each}
            for each in (
                "0001-01-01T00:00:00Z",
                "1969-12-31T23:59:59.999999999+14:00",
                "2026-02-28T23:59:59.1-23:59",
                "9999-12-31T23:59:59Z",
            )
        ),
    ]
    events = [tracked(n, **each) for n, each in enumerate(shapes)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert (len(events), 0) == (figures["delivered"], figures.get("dead", 0))


def test_the_printed_table_drops_a_repeated_batch_and_keeps_every_field(
    clickhouse_engine: str, database: str
) -> None:
    sql(clickhouse_engine, create_statements("events", database))
    whole = {
        "name": "Home",
        "userId": "u1",
        "originalTimestamp": "2026-01-31T02:00:00.123+02:00",
        "sentAt": "2026-01-31T00:00:00.123Z",
        "context": {"ip": "192.0.2.1"},
        "traits": {"x": True},
        "integrations": {"All": True},
    }
    settings = destination(clickhouse_engine, database)
    events = [tracked(n, **whole) for n in range(10)]
    assert [Accepted()] * 2 == send(settings, batch(events), batch(events, attempt=2))
    assert [10] == sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.events")
    row = ask(
        clickhouse_engine, "POST", f"SELECT * FROM {database}.events ORDER BY messageId LIMIT 1"
    )
    sent = json.loads(events[0])
    assert sent.keys() == row.keys()
    for name in ("properties", "context", "traits", "integrations"):
        assert sent[name] == json.loads(row[name])
    assert "2026-01-31 00:00:00.123" == row["originalTimestamp"]


def test_settings_of_the_operator_apply_to_the_insert(
    clickhouse_engine: str, database: str
) -> None:
    sql(clickhouse_engine, f"CREATE TABLE {database}.events (messageId String) {PLAIN}")
    sent = batch([tracked(1)])
    (outcome,) = send(
        destination(clickhouse_engine, database, settings={"input_format_max_bytes_x": 1}), sent
    )
    assert isinstance(outcome, Held)
    assert "code 115" in outcome.reason
    narrow = {"max_columns_to_read": 1, "input_format_null_as_default": False}
    (outcome,) = send(destination(clickhouse_engine, database, settings=narrow), sent)
    assert Accepted() == outcome


def test_rows_with_every_kind_of_number_are_found_together(
    clickhouse_engine: str, database: str, data: DataDir
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, value Int32, name String,"
        f" CONSTRAINT small CHECK value < 10, CONSTRAINT short CHECK length(name) < 40)"
        f" {PLAIN} {WINDOW}",
    )
    quoted = "is violated at row 1. Expression: (at row 1) (at row 2)"
    bad: list[dict[str, Any]]
    bad = [{"value": "zz"}, {"value": 77}, {"name": quoted}, {"value": 78, "name": quoted}]
    events = [
        tracked(n, **(bad[n % 16 // 4] if n % 4 == 3 else {"value": 1, "name": "x"}))
        for n in range(400)
    ]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert (300, 100) == (figures["delivered"], figures["dead"])
    stored = sql(clickhouse_engine, f"SELECT messageId FROM {database}.events")
    assert sorted(message_id(n) for n in range(400) if n % 4 != 3) == sorted(stored)
    codes = Counter(each.reason[-3:] for each in dead_letters(data, "warehouse"))
    assert {" 27": 25, "469": 75} == codes


EXPRESSION_FAULTS = {
    "a constraint": ("value Int32, CONSTRAINT c CHECK value < 10", 1, 77, 469),
    "a default": ("value String, x Int32 DEFAULT toInt32(value)", "1", "zz", 6),
    "a column that divides": ("value Int32, x Int32 MATERIALIZED intDiv(1, value)", 1, 0, 153),
    "a column that throws": ("value Int32, x UInt8 MATERIALIZED throwIf(value = 7)", 1, 7, 395),
}


@pytest.mark.parametrize(
    ("columns", "good", "bad", "code"), EXPRESSION_FAULTS.values(), ids=list(EXPRESSION_FAULTS)
)
def test_rows_that_an_expression_rejects_are_dead_letters_alone(
    clickhouse_engine: str,
    database: str,
    data: DataDir,
    columns: str,
    good: object,
    bad: object,
    code: int,
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, {columns}) {PLAIN} {WINDOW}",
    )
    events = [tracked(n, value=bad if n in (5, 40) else good) for n in range(64)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert ("healthy", 62, 2) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    stored = sql(clickhouse_engine, f"SELECT messageId FROM {database}.events")
    assert sorted(message_id(n) for n in range(64) if n not in (5, 40)) == sorted(stored)
    reasons = {each.reason for each in dead_letters(data, "warehouse")}
    assert {f"status {400 if code == 6 else 500}, code {code}"} == reasons


NUMBER = "(at row 1)"
KEY = "(while reading the value of key event)"
END = f"{KEY}: {NUMBER}\n: While executing ParallelParsingBlockInputFormat. (X)"
FORGED = {
    "a number in a column": ("x UInt32 MATERIALIZED toUInt32(value)", "7", NUMBER),
    "an end in a column": ("x UInt32 MATERIALIZED toUInt32(value)", "7", END),
    "an end in a default": ("x UInt32 DEFAULT toUInt32(value)", "7", END),
    "an element, raw": ("x Enum('a' = 1) MATERIALIZED CAST(value, 'Enum(\\'a\\' = 1)')", "a", END),
    "a number in a constraint": ("CONSTRAINT c CHECK toUInt32(value) > 0", "7", END),
    "a key in a constraint": ("CONSTRAINT c CHECK length(value) < 3", "DE", KEY),
    "a violation in a column": (
        "x UInt32 MATERIALIZED toUInt32(value)",
        "7",
        "Code: 469. DB::Exception: Constraint `c` for table events is violated at row 1. ",
    ),
}


@pytest.mark.parametrize("place", [0, 9, 63])
@pytest.mark.parametrize(("columns", "good", "bad"), FORGED.values(), ids=list(FORGED))
def test_the_contents_of_one_event_make_no_other_one_a_dead_letter(
    clickhouse_engine: str,
    database: str,
    data: DataDir,
    columns: str,
    good: str,
    bad: str,
    place: int,
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, event String, value String, {columns})"
        f" {PLAIN} {WINDOW}",
    )
    events = [tracked(n, event="Order", value=bad if n == place else good) for n in range(64)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert ("healthy", 63, 1) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    stored = sql(clickhouse_engine, f"SELECT messageId FROM {database}.events")
    assert sorted(message_id(n) for n in range(64) if n != place) == sorted(stored)
    (letter,) = dead_letters(data, "warehouse")
    assert message_id(place) == letter.event["messageId"]


def test_a_constraint_of_a_views_target_rejects_no_row_that_the_view_leaves_out(
    clickhouse_engine: str, database: str, data: DataDir
) -> None:
    """The error counts the rows of the target table, which are not those of the batch."""
    for query in (
        f"CREATE TABLE {database}.events (messageId String, value Int32) {PLAIN} {WINDOW}",
        f"CREATE TABLE {database}.target (value Int32, CONSTRAINT c CHECK value < 10) {PLAIN}",
        f"CREATE MATERIALIZED VIEW {database}.view TO {database}.target"
        f" AS SELECT value FROM {database}.events WHERE value > 1",
    ):
        sql(clickhouse_engine, query)
    events = [tracked(n, value=77 if n == 9 else 1) for n in range(64)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert (63, 1) == (figures["delivered"], figures["dead"])
    (letter,) = dead_letters(data, "warehouse")
    assert message_id(9) == letter.event["messageId"]


def test_arrays_of_different_sizes_are_dead_letters_alone(
    clickhouse_engine: str, database: str, data: DataDir
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events"
        f" (messageId String, `n.a` Array(Int32), `n.b` Array(Int32)) {PLAIN}",
    )
    events = [tracked(n, **{"n.a": [1], "n.b": [1] * (1 + (n == 9))}) for n in range(32)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert ("healthy", 31, 1) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    assert [31] == sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.events")


def test_rows_of_too_many_partitions_arrive_in_several_inserts(
    clickhouse_engine: str, database: str, data: DataDir
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, value Int32)"
        " ENGINE = MergeTree PARTITION BY value ORDER BY tuple()",
    )
    events = [tracked(n, value=n) for n in range(250)]
    figures = deliver(destination(clickhouse_engine, database), data, events)
    assert (250, 0) == (figures["delivered"], figures.get("dead", 0))
    assert [250] == sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.events")


def test_a_batch_that_is_repeated_without_its_bad_rows_is_stored_once(
    clickhouse_engine: str, database: str
) -> None:
    sql(
        clickhouse_engine,
        f"CREATE TABLE {database}.events (messageId String, value Int32) {PLAIN} {WINDOW}",
    )
    events = [tracked(n, value="zz" if n % 4 == 1 else n) for n in range(100)]
    sent = batch(events, "b1")
    for gzip in (False, True):
        (outcome,) = send(destination(clickhouse_engine, database, gzip=gzip), sent)
        assert isinstance(outcome, Partial)
        assert set(range(1, 100, 4)) == set(outcome.failed)
        assert all(isinstance(each, Rejected) for each in outcome.failed.values())
    assert [75] == sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.events")


@pytest.mark.parametrize("window", [100, 0])
def test_a_repeated_batch_is_dropped_in_a_view_whose_target_has_a_window(
    clickhouse_engine: str, database: str, window: int
) -> None:
    for query in (
        f"CREATE TABLE {database}.events (messageId String) {PLAIN} {WINDOW}",
        f"CREATE TABLE {database}.target (messageId String) {PLAIN}"
        f" SETTINGS non_replicated_deduplication_window = {window}",
        f"CREATE MATERIALIZED VIEW {database}.view TO {database}.target"
        f" AS SELECT messageId FROM {database}.events",
    ):
        sql(clickhouse_engine, query)
    sent = batch([tracked(n) for n in range(10)], "b1")
    again = batch([tracked(n) for n in range(10)], "b1", attempt=2)
    assert [Accepted()] * 2 == send(destination(clickhouse_engine, database), sent, again)
    counts = [
        sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.{table}")[0]
        for table in ("events", "target")
    ]
    assert [10, 10 if window else 20] == counts


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_view_that_throws_repeats_rows_unless_its_errors_are_ignored(
    clickhouse_engine: str, database: str, data: DataDir, is_ignored: bool
) -> None:
    """As docs/destinations.md says, the rows are stored before the view fails."""
    for query in (
        f"CREATE TABLE {database}.events (messageId String, value String) {PLAIN} {WINDOW}",
        f"CREATE TABLE {database}.target (value Int32) {PLAIN}",
        f"CREATE MATERIALIZED VIEW {database}.view TO {database}.target"
        f" AS SELECT toInt32(value) AS value FROM {database}.events",
    ):
        sql(clickhouse_engine, query)
    events = [tracked(n, value="zz" if n == 9 else "1") for n in range(64)]
    sql(clickhouse_engine, f"SET materialized_views_ignore_errors = {int(is_ignored)}")
    try:
        figures = deliver(destination(clickhouse_engine, database), data, events)
    finally:
        sql(clickhouse_engine, "SET materialized_views_ignore_errors = 0")
    assert 64 == figures["delivered"] + figures.get("dead", 0)
    (rows,) = sql(clickhouse_engine, f"SELECT toInt32(count()) FROM {database}.events")
    assert is_ignored == (rows == 64)
