"""Compare times and message ids with the standard library."""

from __future__ import annotations

import json
import multiprocessing
import uuid
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelfast.event import EventWriter, Rules
from tests import oracle_strings
from tests.event.test_decoder import SEEDS, time
from tests.event.writing import NOW_MS, write

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS = -62135596800000  # year 1, the first that datetime supports
LAST_MS = 253402300799999
WRITER = EventWriter()
RULES = Rules()


def utc_string(milliseconds: int) -> str:
    """Return `receivedAt` of an event of this time."""
    encoded, _ = write(WRITER, b"userId=u", RULES, received_ms=milliseconds)
    return str(json.loads(encoded)["receivedAt"])


def date_time_us(string: str) -> int | None:
    """Return the microseconds since 1970 that a parameter is read as, or None if it is not a time.

    With `receivedAt` and `sentAt` in 1970 the event's `timestamp` is `originalTimestamp`, rounded
    down to the millisecond. The largest number of microseconds that can be subtracted without
    changing the result is the part that was rounded off.
    """

    def shown_ms(sent_us: int) -> int | None:
        sent = f"1970-01-01T00:00:00.{sent_us:06}Z"
        query = f"userId=u&sentAt={sent}&originalTimestamp={quote(string, safe='')}"
        encoded, warnings = write(WRITER, query.encode(), RULES, received_ms=0)
        if warnings:
            assert [("invalid-time", b"originalTimestamp")] == warnings
            return None
        shown = datetime.fromisoformat(json.loads(encoded)["timestamp"])
        return (shown - EPOCH) // timedelta(milliseconds=1)

    shown = shown_ms(0)
    if shown is None:
        return None
    low, high = 0, 999
    while low < high:
        middle = (low + high + 1) // 2
        if shown_ms(middle) == shown:
            low = middle
        else:
            high = middle - 1
    return shown * 1000 + low


@given(st.integers(FIRST_MS, LAST_MS))
def test_a_time_is_written_as_datetime_writes_it(milliseconds: int) -> None:
    expected = (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    assert expected.replace("+00:00", "Z") == utc_string(milliseconds)


@pytest.mark.parametrize(
    ("milliseconds", "string"),
    [
        (-62167219200000, "0000-01-01T00:00:00.000Z"),
        (-62167219200001, "0000-01-01T00:00:00.000Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
        (LAST_MS + 1, "9999-12-31T23:59:59.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_clamped_to_years_of_four_digits(milliseconds: int, string: str) -> None:
    assert string == utc_string(milliseconds)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),  # noqa: DTZ001
    st.integers(-18 * 60, 18 * 60),
    st.booleans(),
)
def test_a_date_time_is_read_as_datetime_reads_it(
    naive: datetime, offset_minutes: int, has_micros: bool
) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    if not has_micros:
        moment = moment.replace(microsecond=0)
    expected = (moment - EPOCH) // timedelta(microseconds=1)
    assert expected == date_time_us(moment.isoformat())


def time_in_event(string: str) -> tuple[str, list[str]]:
    """Return the `timestamp` of an event with this parameter, and the reasons of its warnings."""
    encoded, warnings = write(
        WRITER, f"userId=u&timestamp={quote(string, safe='')}".encode(), RULES
    )
    return json.loads(encoded)["timestamp"], [reason for reason, _ in warnings]


@pytest.mark.parametrize(
    "string",
    [
        "2026-11-23T10:15:30Z",
        "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "0000-02-29T00:00:00Z",
        "2026-11-23T10:15:30.1Z",
        "2026-11-23T10:15:30.123456789+05:30",
        "2026-11-23T10:15:30-00:00",
        "2026-11-23T10:15:30+18:00",
        "2026-11-23T10:15:30-18:00",
        "0000-01-01T00:00:00+18:00",
    ],
)
def test_a_time_that_every_destination_accepts_is_kept_as_sent(string: str) -> None:
    assert (string, []) == time_in_event(string)


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("2026-11-23t10:15:30Z", "2026-11-23T10:15:30.000Z"),
        ("2026-11-23T10:15:30z", "2026-11-23T10:15:30.000Z"),
        ("2026-11-23 10:15:30Z", "2026-11-23T10:15:30.000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999Z"),
        ("2017-01-01T00:59:60.5+01:00", "2016-12-31T23:59:59.999Z"),
        ("2026-11-23T10:15:30.12345678901234567890Z", "2026-11-23T10:15:30.123Z"),
        ("2026-11-23T10:15:30.9999999999Z", "2026-11-23T10:15:30.999Z"),
        ("1969-12-31T23:59:59.9999999999Z", "1969-12-31T23:59:59.999Z"),
        ("1700000000", "2023-11-14T22:13:20.000Z"),
        ("0000000000", "1970-01-01T00:00:00.000Z"),
        ("1700000000001", "2023-11-14T22:13:20.001Z"),
        ("9999999999999", "2286-11-20T17:46:39.999Z"),
        ("2026-11-23T10:15Z", "2026-11-23T10:15:00.000Z"),
        ("2026-11-23T10:15", "2026-11-23T10:15:00.000Z"),
        ("2026-11-23T10:15:30", "2026-11-23T10:15:30.000Z"),
        ("2026-11-23T10:15:30,25Z", "2026-11-23T10:15:30.250Z"),
        ("2026-11-23T10:15:30+0100", "2026-11-23T09:15:30.000Z"),
        ("2026-11-23T10:15:30 01:00", "2026-11-23T09:15:30.000Z"),
        ("2026-11-23T10:15:30 0100", "2026-11-23T09:15:30.000Z"),
        ("2026-11-23T10:15:30-0330", "2026-11-23T13:45:30.000Z"),
        ("2026-11-23T10:15:30+18:01", "2026-11-22T16:14:30.000Z"),
        ("2026-11-23T10:15:30.123456-23:59", "2026-11-24T10:14:30.123Z"),
        ("2026-11-23T10:15:30Z ", "2026-11-23T10:15:30Z"),
        ("\n2026-11-23T10:15:30Z", "2026-11-23T10:15:30Z"),
        (" 1700000000 ", "2023-11-14T22:13:20.000Z"),
    ],
)
def test_a_time_in_another_form_is_converted_to_utc(string: str, expected: str) -> None:
    assert (expected, []) == time_in_event(string)


@given(SEEDS.map(Random).map(time))
@example("2026-11-23T10:15:30 ")
@example("0000-01-01 00:00:00+00:01")
@example("9999-12-31 23:59:59-00:01")
@example("2026-11-23T10:15:30+18:00")
@example("2026-11-23T10:15:30-18:01")
def test_a_time_is_read_as_the_oracle_reads_it(string: str) -> None:
    expected = oracle_strings.date_time(string)
    found, warnings = time_in_event(string)
    if expected is None:
        assert ["invalid-time"] == warnings
    else:
        assert (expected, []) == (found, warnings)


def test_converted_times_are_used_to_compute_the_timestamp() -> None:
    query = b"userId=u&originalTimestamp=2016-12-31T23:59:60Z&sentAt=2017-01-01t00:00:00.0009Z"
    event = json.loads(write(WRITER, query, RULES, received_ms=0)[0])
    assert event["originalTimestamp"] == "2016-12-31T23:59:59.999Z"
    assert event["sentAt"] == "2017-01-01T00:00:00.000Z"
    assert event["timestamp"] == "1969-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "string",
    [
        "",
        "2026-11-23",
        "2026-11-23T10:15:30.Z",
        "2026-11-23T10:15.5Z",
        "2026-11-23T10:15:Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T10:60:00Z",
        "2026-11-23T10:15:61Z",
        "2026-13-01T10:15:30Z",
        "2026-00-01T10:15:30Z",
        "2026-11-31T10:15:30Z",
        "2026-11-00T10:15:30Z",
        "2026-02-29T10:15:30Z",
        "1900-02-29T10:15:30Z",
        "2026-11-23T10:15:30+1:00",
        "2026-11-23T10:15:30+24:00",
        "2026-11-23T10:15:30+01:60",
        "2026-11-23T10:15:30+01",
        "2026-11-23T10:15:30 +01:00",
        "2026-11-23T10:15:30  01:00",
        "2026-11-23T10:15:30ZZ",
        "2026-11-23T10:15:30Z+01:00",
        "0000-01-01 00:00:00+00:01",
        "9999-12-31 23:59:59-00:01",
        "0000-01-01T00:00:00+23:59",
        "170000000",
        "17000000000",
        "170000000000",
        "-1700000000",
        "1700000000.0",
        "17000000000000",
        "+026-11-23T10:15:30Z",
        "٢٠٢٦-11-23T10:15:30Z",
        "2026-11-23T10:15:30\x01Z",
        "20261123T101530Z.....",
    ],
)
def test_any_other_string_is_not_a_time(string: str) -> None:
    assert date_time_us(string) is None


def test_a_nul_in_a_time_is_removed() -> None:
    encoded, warnings = write(WRITER, b"userId=u&timestamp=2026-11-23T10:15:30%00Z", RULES)
    assert ([], "2026-11-23T10:15:30Z") == (warnings, json.loads(encoded)["timestamp"])


@given(st.text(st.sampled_from("0123456789-:TtZz.+ "), min_size=10, max_size=30))
def test_the_time_parser_accepts_any_string(string: str) -> None:
    expected = oracle_strings.date_time(string)
    found, warnings = time_in_event(string)
    assert (expected or utc_string(NOW_MS), expected is None) == (found, bool(warnings))


def message_id(milliseconds: int) -> str:
    """Return the id of a new event."""
    encoded, _ = write(WRITER, b"userId=u&name=n", RULES, received_ms=milliseconds)
    return str(json.loads(encoded)["messageId"])


def test_a_message_id_is_a_uuid_of_version_7_with_its_time() -> None:
    for milliseconds in (1_795_342_530_123, 0, 2**48 - 1):
        made = uuid.UUID(message_id(milliseconds))
        assert (7, uuid.RFC_4122) == (made.version, made.variant)
        assert made.int >> 80 == milliseconds


def test_message_ids_are_unique() -> None:
    count = 20_000  # several blocks of random bytes
    assert len({message_id(1_795_342_530_123) for _ in range(count)}) == count


def test_all_random_bits_of_message_ids_are_used() -> None:
    made = [uuid.UUID(message_id(0)).int for _ in range(2_000)]
    always = never = 2**128 - 1
    for each in made:
        always &= each
        never &= ~each
    version_and_variant = 0xF << 76 | 0b11 << 62
    time = (2**48 - 1) << 80
    assert time | version_and_variant == always | never


def test_two_writers_generate_different_message_ids() -> None:
    writers = [EventWriter() for _ in range(3)]
    made = [write(writer, b"userId=u", RULES)[0] for writer in writers for _ in range(500)]
    assert len({json.loads(each)["messageId"] for each in made}) == len(made)


def test_a_forked_process_generates_different_message_ids() -> None:
    message_id(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.map(message_id, range(200))
    ours = [message_id(n) for n in range(200)]
    assert {each[14:] for each in ours}.isdisjoint(each[14:] for each in theirs)
