"""Times and identifiers against the standard library."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.event import date_time_us, message_id, utc_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS = -62135596800000  # year 1: the first that datetime knows
LAST_MS = 253402300799999


@given(st.integers(FIRST_MS, LAST_MS))
def test_a_time_is_written_as_datetime_writes_it(milliseconds: int) -> None:
    expected = (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    assert expected.replace("+00:00", "Z") == utc_text(milliseconds)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-62167219200000, "0000-01-01T00:00:00.000Z"),
        (-62167219200001, "0000-01-01T00:00:00.000Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
        (LAST_MS + 1, "9999-12-31T23:59:59.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_kept_within_four_digits_of_year(milliseconds: int, text: str) -> None:
    assert text == utc_text(milliseconds)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
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


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T10:15:30Z",
        "2026-11-23t10:15:30z",
        "2024-02-29T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "0000-02-29T00:00:00Z",
        "2016-12-31T23:59:60Z",
        "2026-11-23T10:15:30.1Z",
        "2026-11-23T10:15:30.12345678901234567890Z",
        "2026-11-23T10:15:30-00:00",
        "2026-11-23T10:15:30+23:59",
    ],
)
def test_a_date_time_of_rfc_3339_is_taken(text: str) -> None:
    assert date_time_us(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T10:15:30",
        "2026-11-23 10:15:30Z",
        "2026-11-23T10:15:30.Z",
        "2026-11-23T10:15Z",
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
        "2026-11-23T10:15:30+0100",
        "2026-11-23T10:15:30 01:00",
        "2026-11-23T10:15:30ZZ",
        "2026-11-23T10:15:30Z ",
        "+026-11-23T10:15:30Z",
        "٢٠٢٦-11-23T10:15:30Z",
        "2026-11-23T10:15:30\0Z",
        "20261123T101530Z.....",
    ],
)
def test_anything_else_is_no_date_time(text: str) -> None:
    assert date_time_us(text) is None


@given(st.text(st.sampled_from("0123456789-:TtZz.+ "), min_size=15, max_size=30))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    assert date_time_us(text) is None or len(text) >= 20


def test_a_message_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = uuid.UUID(message_id(1_795_342_530_123))
    assert (7, uuid.RFC_4122) == (made.version, made.variant)
    assert made.int >> 80 == 1_795_342_530_123


def test_message_ids_do_not_repeat() -> None:
    count = 20_000  # over several blocks of random bytes
    assert len({message_id(1_795_342_530_123) for _ in range(count)}) == count


def test_a_forked_process_makes_other_message_ids() -> None:
    import multiprocessing

    message_id(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.map(message_id, range(200))
    ours = [message_id(n) for n in range(200)]
    assert {each[14:] for each in ours}.isdisjoint(each[14:] for each in theirs)
