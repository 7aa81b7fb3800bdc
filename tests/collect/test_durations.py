"""Durations of responses, as the metrics show them. Only the tests move the clock."""

from __future__ import annotations

from typing import Any

import pytest

from pixelfast.spool.histograms import BUCKETS, DURATION_BOUNDS_S, DurationHistogram
from tests.collect.wire import TRACK, ask, http
from tests.fakes import FakeCollector


def counts(fake: FakeCollector) -> dict[str, list[int]]:
    """Return the counts of the buckets by class of status."""
    return {name: own["counts"] for name, own in fake.connections.durations().items()}


def only(bucket: int, count: int = 1) -> list[int]:
    return [count if number == bucket else 0 for number in range(BUCKETS)]


NONE = only(0, 0)


@pytest.mark.parametrize("wait_s", [0.0, 63.9e-6, 0.003, 0.05, 2.0, 33.0, 100.0])
def test_the_duration_of_a_response_is_that_of_its_commit(wait_s: float) -> None:
    fake = FakeCollector(writer={"max_wait_s": 1000.0})
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    fake.clock.advance(wait_s)
    fake.disk.settle()
    assert transport.sent.startswith(b"HTTP/1.1 200")
    expected = DurationHistogram()  # compiled and Python code use the same buckets
    expected.add(wait_s)
    found: Any = fake.connections.durations()["2xx"]
    assert expected.figures()["counts"] == found["counts"]
    assert wait_s == pytest.approx(found["sum"], abs=1e-6)


def test_durations_are_grouped_by_class_of_status() -> None:
    fake = FakeCollector()
    assert 401 == ask(fake, http(TRACK.replace(b"demo", b"who"))).status
    assert {"2xx": NONE, "4xx": only(0), "5xx": NONE} == counts(fake)


def test_one_request_in_sixteen_is_measured() -> None:
    fake = FakeCollector()
    for _ in range(16):
        assert 200 == ask(fake, http()).status
    assert {"2xx": only(0, 1), "4xx": NONE, "5xx": NONE} == counts(fake)
    assert 200 == ask(fake, http()).status
    assert {"2xx": only(0, 2), "4xx": NONE, "5xx": NONE} == counts(fake)


def test_the_duration_of_a_request_begins_at_its_last_byte() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    for byte in http(headers=[b"Cookie: a=1"]):
        fake.clock.advance(0.01)
        connection.data_received(bytes([byte]))
    fake.disk.settle()
    assert transport.sent.startswith(b"HTTP/1.1 200")
    assert only(0) == counts(fake)["2xx"]


def test_a_client_that_has_left_is_not_measured() -> None:
    fake = FakeCollector()
    connection, _ = fake.connect()
    connection.data_received(http())
    connection.connection_lost(None)
    fake.disk.settle()
    assert NONE == counts(fake)["2xx"]


def test_the_bounds_are_powers_of_two_microseconds() -> None:
    assert (BUCKETS - 1, 64e-6, 33.554432) == (
        len(DURATION_BOUNDS_S),
        DURATION_BOUNDS_S[0],
        DURATION_BOUNDS_S[-1],
    )
