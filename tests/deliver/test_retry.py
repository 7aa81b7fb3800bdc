"""The pauses after failures: limits of the backoff, and the Retry-After header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.backoff import Backoff
from pixelfast.deliver.retry import parse_retry_after

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOUR_S = 3600.0


def test_the_pause_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 5.0, random=lambda: 1.0)
    assert [0.5, 1.0, 2.0, 4.0, 5.0, 5.0] == [backoff.next_s() for _ in range(6)]


def test_the_jitter_is_full() -> None:
    assert 0.0 == Backoff(0.5, 60.0, random=lambda: 0.0).next_s()
    half = Backoff(0.5, 60.0, random=lambda: 0.5)
    assert [0.25, 0.5, 1.0] == [half.next_s() for _ in range(3)]


@given(first_s=st.floats(0.001, 100), max_s=st.floats(0.001, 1000), attempts=st.integers(1, 200))
def test_every_pause_is_within_its_limits(first_s: float, max_s: float, attempts: int) -> None:
    backoff = Backoff(first_s, max_s)
    waits = [backoff.next_s() for _ in range(attempts)]
    assert all(0.0 <= wait <= max_s for wait in waits)
    assert attempts == backoff.failures


def test_a_first_pause_above_the_maximum_is_reduced_to_it() -> None:
    assert 2.0 == Backoff(10.0, 2.0, random=lambda: 1.0).next_s()


def test_the_destination_sets_the_minimum_pause() -> None:
    backoff = Backoff(0.5, 60.0, random=lambda: 1.0)
    assert [30.0, 1.0] == [backoff.next_s(30.0), backoff.next_s()]
    assert 2.0 == backoff.next_s(1.5), "the backoff's own wait is longer"


def test_the_destination_may_ask_for_more_than_the_maximum_pause() -> None:
    assert 120.0 == Backoff(0.5, 60.0, random=lambda: 1.0).next_s(120.0)


def test_a_success_resets_the_pause() -> None:
    backoff = Backoff(0.5, 60.0, random=lambda: 1.0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert (0, 0.5, 1.0, 2) == (
        backoff.failures,
        backoff.next_s(),
        backoff.next_s(),
        backoff.failures,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("0", 0.0),
        ("1", 1.0),
        (" 120 ", 120.0),
        ("007", 7.0),
        ("3600", HOUR_S),
        ("3601", HOUR_S),
        ("9" * 4000, HOUR_S),
    ],
)
def test_retry_after_in_seconds(text: str | None, seconds: float) -> None:
    assert seconds == parse_retry_after(text, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Mon, 23 Nov 2026 10:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 12:00:30 +0200", 30.0),
        ("Mon, 23 Nov 2026 10:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 10:00:30", 30.0),
        ("Monday, 23-Nov-26 10:00:30 GMT", 30.0),
        ("Mon Nov 23 10:00:30 2026", 30.0),
        ("Mon, 23 Nov 2026 10:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 09:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 10:00:00 GMT", HOUR_S),
        ("Fri, 31 Dec 9999 23:59:59 -2359", HOUR_S),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_as_a_date(text: str, seconds: float) -> None:
    assert seconds == parse_retry_after(text, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "-5",
        "1.5",
        "5, 7",
        "٣",
        "²",
        "\x00",
        "Mon, 23 Nov",
        "Mon, 99 Nov 2026 10:00:00 GMT",
        "Mon, 23 Nov 2026 99:00:00 GMT",
        "GMT",
        ",,,,",
    ],
)
def test_an_invalid_retry_after_means_no_pause(text: str) -> None:
    assert 0.0 == parse_retry_after(text, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 23 Nov 99999999999 10:00:00 GMT",
        "Mon, 23 Nov 2026 10:00:00 +99999999999999999",
        "Mon, 99999999999999999999 Nov 2026 10:00:00 GMT",
    ],
)
def test_a_date_out_of_range_does_not_raise(text: str) -> None:
    """Every response has an outcome, so parsing a header must not raise."""
    assert 0.0 <= parse_retry_after(text, NOW) <= HOUR_S


def test_the_system_clock_is_the_default() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1000)
    assert 900.0 < parse_retry_after(format_datetime(soon, usegmt=True)) <= 1000.0


@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(
            r"Mon, \d{1,20} (Jan|Nov) \d{1,20} \d{1,9}:\d{1,9}:\d{1,9} ([+-]\d{1,20}|GMT)",
            fullmatch=True,
        ),
    )
)
def test_no_header_raises_or_results_in_more_than_an_hour(text: str) -> None:
    assert 0.0 <= parse_retry_after(text, NOW) <= HOUR_S
