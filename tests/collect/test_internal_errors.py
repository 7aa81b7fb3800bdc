"""An internal error affects one connection, and is logged."""

from __future__ import annotations

import contextlib
import errno
from typing import Any

import pytest
import structlog.testing

from pixelfast.config import Source, WriteKey
from tests.collect.peers import TransportError, connect_failing
from tests.collect.wire import (
    GIF,
    PIXEL_HEADERS,
    TRACK,
    events,
    fail_commit,
    feed,
    http,
    read_responses,
    statuses,
)
from tests.fakes import DEMO, FakeCollector


class Bug(Exception):
    """Raised by the tests; the code handles no such exception."""


def fail(*_: object, **__: object) -> bytes:
    raise Bug("a bug")


class FailingKey(str):
    """A write key that raises when it is looked up."""

    __hash__ = str.__hash__

    def __eq__(self, _: object) -> bool:
        raise Bug("a bug")


FAILING = http(b"/pixel/v1/track?writeKey=wk-bad&secret=wk-demo")


def with_origin(request: bytes) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nOrigin: https://a.example\r\n\r\n")


def failing_collector(**options: Any) -> FakeCollector:
    """Return a collector that fails on the pixels of one write key."""
    bad = Source(name="bad", write_keys=(WriteKey(key=FailingKey("wk-bad")),))
    return FakeCollector((DEMO, bad), **options)


@pytest.mark.parametrize("piece_bytes", [1, 10**9])
def test_an_internal_error_gets_500(piece_bytes: int) -> None:
    fake = failing_collector()
    connection, transport = fake.connect()
    with structlog.testing.capture_logs() as logs:
        feed(connection, FAILING, piece_bytes)
    (response,) = read_responses(transport.sent)
    assert (500, "internal-error", GIF) == (response.status, response.reason, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert (True, True) == (response.closes, transport.has_eof)
    (entry,) = logs
    assert ("request_failed", "error") == (entry["event"], entry["log_level"])
    assert isinstance(entry["exc_info"], Bug)
    assert "secret" not in repr(entry)
    assert "wk-demo" not in repr(entry)


@pytest.mark.parametrize(("always_200", "status"), [(True, 200), (False, 500)])
def test_always_200_hides_internal_errors_of_pixels(always_200: bool, status: int) -> None:
    fake = failing_collector(always_200=always_200)
    with structlog.testing.capture_logs():
        sent = fake.exchange(with_origin(FAILING))
    (response,) = read_responses(sent)
    assert (status, "internal-error", GIF) == (response.status, response.reason, response.body)


@pytest.mark.parametrize(("always_200", "status"), [(True, 200), (False, 500)])
def test_always_200_hides_a_pixel_that_cannot_be_rendered(always_200: bool, status: int) -> None:
    fake = FakeCollector(always_200=always_200)
    responses = fake.collector.responses
    pixel = responses.pixel

    def fail_unless_rejected(of_status: int = 200, *given: Any, **named: Any) -> bytes:
        return pixel(of_status, *given, **named) if named.get("reason") else fail()

    responses.pixel = fail_unless_rejected  # type: ignore[assignment,method-assign]
    with structlog.testing.capture_logs():
        sent = fake.exchange(with_origin(http()))
    (response,) = read_responses(sent)
    assert (status, "internal-error", GIF) == (response.status, response.reason, response.body)


RENDERED = {
    "robots": http(b"/robots.txt"),
    "preflight": http(TRACK, b"OPTIONS"),
    "not_found": http(b"/"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_response_that_cannot_be_rendered_becomes_500(name: str) -> None:
    fake = FakeCollector()
    setattr(fake.collector.responses, name, fail)
    with structlog.testing.capture_logs() as logs:
        responses = read_responses(fake.exchange(RENDERED[name] + http()))
    assert 0 == fake.connections.held_bytes
    assert [500, 200] == [response.status for response in responses]
    assert ("internal-error", GIF) == (responses[0].reason, responses[0].body)
    assert ["request_failed"] == [entry["event"] for entry in logs]
    assert {"internal-error": 1} == fake.collector.sources.unknown.rejected


def test_the_requests_before_an_internal_error_are_stored_and_get_responses() -> None:
    fake = failing_collector()
    connection, transport = fake.connect()
    connection.data_received(http() * 2 + FAILING + http())
    assert b"" == transport.sent
    fake.disk.settle()
    responses = read_responses(transport.sent)
    assert [200, 200, 500] == [response.status for response in responses]
    assert [False, False, True] == [response.closes for response in responses]
    assert transport.has_eof
    assert 2 == len(events(fake))


def test_an_internal_error_does_not_affect_other_connections() -> None:
    fake = failing_collector()
    (bad, of_bad), (good, of_good) = fake.connect(), fake.connect()
    good.data_received(http()[:30])
    bad.data_received(http() + FAILING)
    good.data_received(http()[30:])
    fake.disk.settle()
    assert [200] == statuses(of_good.sent)
    assert [200, 500] == statuses(of_bad.sent)
    bad.connection_lost(None)
    good.data_received(http())
    fake.disk.settle()
    assert [200, 200] == statuses(of_good.sent)
    assert {200: 3, 500: 1} == fake.connections.responses


def test_internal_errors_are_counted() -> None:
    fake = failing_collector()
    for _ in range(3):
        fake.exchange(FAILING)
    assert {"internal-error": 3} == fake.collector.sources.unknown.rejected


def test_a_rejection_is_not_logged_as_an_error() -> None:
    fake = failing_collector()
    with structlog.testing.capture_logs() as logs:
        fake.exchange(http(TRACK + b"&_=" + b"x" * 40_000))
        fake.exchange(http(headers=[b"X: y"] * 200))
        fake.exchange(http(TRACK, b"POST", [b"Content-Length: 90000"], b"x" * 90_000))
        fake.exchange(b"\x00")
    assert [] == logs


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_transport_that_fails_does_not_affect_other_connections(is_stored: bool) -> None:
    """All of them wait for the same commit, and each must get its response."""
    fake = FakeCollector()
    pairs = [connect_failing(fake) for _ in range(3)]
    for connection, _ in pairs:
        connection.data_received(http())
    pairs[1][1].failures = 100
    fake.loop.turn()
    with contextlib.suppress(TransportError):  # may be raised after the others have their responses
        if not is_stored:
            fake.disk.complete(errno.EIO)
            fake.loop.turn()
        fake.disk.complete(0 if is_stored else errno.EIO)
    expected = [200 if is_stored else 503]
    assert [expected, [], expected] == [statuses(transport.sent) for _, transport in pairs]


def test_an_error_in_one_response_does_not_affect_other_connections() -> None:
    fake = FakeCollector()
    pairs = [fake.connect() for _ in range(3)]
    for number, (connection, _) in enumerate(pairs):
        connection.data_received(http(headers=[b"Origin: https://%d.example" % number]))
    pixel = fake.collector.responses.pixel

    def fail_for_one(*given: Any, **named: Any) -> bytes:
        return fail() if named["origin"] == b"https://1.example" else pixel(*given, **named)

    fake.collector.responses.pixel = fail_for_one  # type: ignore[method-assign]
    fake.loop.turn()
    with structlog.testing.capture_logs() as logs:
        fail_commit(fake, errno.EIO)
    assert "response_failed" in [entry["event"] for entry in logs]
    assert [503, 503] == [*statuses(pairs[0][1].sent), *statuses(pairs[2][1].sent)]
    assert (b"", True) == (pairs[1][1].sent, pairs[1][1].is_aborted)


def test_an_error_in_one_acknowledgement_does_not_affect_other_connections() -> None:
    class Count:
        """A counter that fails when it is incremented for the second time."""

        added = 0

        def __add__(self, _: int) -> Count:
            self.added += 1
            return fail() if self.added == 2 else self  # type: ignore[return-value]

    fake = FakeCollector()
    pairs = [fake.connect() for _ in range(3)]
    for connection, _ in pairs:
        connection.data_received(http())
    fake.collector.sources.unknown.rejected["not-stored"] = Count()  # type: ignore[assignment]
    fake.loop.turn()
    with structlog.testing.capture_logs() as logs:
        fail_commit(fake, errno.EIO)
    assert "response_failed" in [entry["event"] for entry in logs]
    assert [503, 503] == [*statuses(pairs[0][1].sent), *statuses(pairs[2][1].sent)]
    assert (b"", True) == (pairs[1][1].sent, pairs[1][1].is_aborted)
