"""Clients that disconnect: their events are kept, and their connections are freed."""

from __future__ import annotations

import errno
import gc
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog.testing
from httptools import HttpRequestParser

from pixelfast.collect import Connection
from tests.collect.peers import connect_gone
from tests.collect.wire import TRACK, events, fail_commit, feed, http, statuses
from tests.fakes import FakeCollector, FakeTransport


@pytest.fixture
def counted() -> Iterator[Callable[[], int]]:
    """Return the number of connections and parsers alive, without running the cycle collector."""
    gc.collect()
    gc.disable()

    def count() -> int:
        return sum(type(each) in {Connection, HttpRequestParser} for each in gc.get_objects())

    before = count()
    yield lambda: count() - before
    gc.enable()


@pytest.mark.parametrize("error", [None, ConnectionResetError(), BrokenPipeError()])
def test_an_event_that_is_being_committed_is_kept(error: Exception | None) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() * 3)
    fake.loop.turn()
    connection.connection_lost(error)
    fake.disk.settle()
    assert (b"", 3, 3) == (transport.sent, len(events(fake)), fake.connections.dropped_responses)
    assert ({}, set()) == (fake.connections.responses, fake.connections.open)


def test_an_event_that_waits_for_the_next_commit_is_kept() -> None:
    fake = FakeCollector()
    first, _ = fake.connect()
    second, transport = fake.connect()
    first.data_received(http())
    fake.loop.turn()
    second.data_received(http(TRACK.replace(b"u1", b"u2")))
    second.connection_lost(None)
    fake.disk.settle()
    assert ["u1", "u2"] == [event["userId"] for event in events(fake)]
    assert b"" == transport.sent


def test_a_failed_commit_is_reported_to_the_clients_that_are_still_connected() -> None:
    fake = FakeCollector()
    gone, of_gone = fake.connect()
    here, of_here = fake.connect()
    for connection in (gone, here, gone, here):
        connection.data_received(http())
    fake.loop.turn()
    gone.connection_lost(None)
    with structlog.testing.capture_logs():
        fail_commit(fake, errno.EIO)
    assert (b"", [503, 503]) == (of_gone.sent, statuses(of_here.sent))
    assert {503: 2} == fake.connections.responses


def test_ready_responses_after_a_pending_one_are_dropped_with_it() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() + http(b"/") * 2)
    connection.connection_lost(None)
    fake.disk.settle()
    assert (b"", 3) == (transport.sent, fake.connections.dropped_responses)


def test_a_later_client_does_not_get_responses_of_one_that_left() -> None:
    fake = FakeCollector()
    for _ in range(50):
        gone, _ = fake.connect()
        gone.data_received(http() * 2)
        gone.connection_lost(None)
        del gone
        here, transport = fake.connect()
        here.data_received(http())
        fake.disk.settle()
        assert [200] == statuses(transport.sent)
        here.connection_lost(None)


def test_an_incomplete_request_of_a_client_that_left_is_dropped() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http()[:-1])
    connection.connection_lost(None)
    fake.disk.settle()
    assert (b"", [], 0) == (transport.sent, events(fake), fake.connections.requests)


@pytest.mark.parametrize(
    "request_",
    [http(headers=[b"Connection: close"]), b"\x00", http()],
    ids=["close", "malformed", "half-closed"],
)
def test_a_reset_connection_is_closed_without_an_exception(request_: bytes) -> None:
    """An exception would keep the other connections of the commit from their responses."""
    fake = FakeCollector()
    (gone, of_gone), (here, of_here) = connect_gone(fake), fake.connect()
    gone.data_received(request_)
    here.data_received(http())
    gone.eof_received()
    fake.disk.settle()
    assert [200] == statuses(of_here.sent)
    assert of_gone.is_closed or of_gone.is_aborted


def test_a_drain_continues_after_a_peer_that_has_reset_its_connection() -> None:
    fake = FakeCollector()
    pairs = [connect_gone(fake) for _ in range(3)]
    for connection, _ in pairs:
        connection.data_received(http(b"/"))
    fake.connections.drain()
    assert [True] * 3 == [transport.is_aborted for _, transport in pairs]


def exchange_requests(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http() * 3 + http(b"/"))
    fake.disk.settle()


def send_nothing(_fake: FakeCollector, _connection: Connection, _: FakeTransport) -> None:
    pass


def stop_in_the_middle(_: FakeCollector, connection: Connection, _t: FakeTransport) -> None:
    feed(connection, http(headers=[b"Origin: x"])[:-3], 5)


def leave_during_a_commit(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http() * 3 + http()[:30])
    fake.loop.turn()


def send_garbage(_: FakeCollector, connection: Connection, _t: FakeTransport) -> None:
    connection.data_received(b"\x00\x01")


def break_a_limit(_: FakeCollector, connection: Connection, _t: FakeTransport) -> None:
    connection.data_received(http(headers=[b"X: y"] * 200))


def cause_an_internal_error(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("a bug")

    fake.collector.responses.not_found = fail  # type: ignore[method-assign]
    with structlog.testing.capture_logs():
        connection.data_received(http(b"/"))


def ask_for_an_upgrade(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http(headers=[b"Connection: Upgrade", b"Upgrade: h2c"]) + b"x")
    fake.disk.settle()


def read_nothing(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http())
    connection.pause_writing()
    connection.data_received(http() * 3)
    fake.disk.settle()


def be_too_slow(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(b"GET")
    fake.clock.advance(11.0)
    fake.connections.sweep()
    fake.clock.advance(3.0)
    fake.connections.sweep()


def be_drained(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http())
    fake.connections.drain()
    fake.disk.settle()


SCENARIOS = [
    exchange_requests,
    send_nothing,
    stop_in_the_middle,
    leave_during_a_commit,
    send_garbage,
    break_a_limit,
    cause_an_internal_error,
    ask_for_an_upgrade,
    read_nothing,
    be_too_slow,
    be_drained,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_closed_connection_is_freed_without_the_cycle_collector(
    scenario: Callable[[FakeCollector, Connection, FakeTransport], None],
    counted: Callable[[], int],
) -> None:
    """The parser and its connection refer to each other. If this cycle remained, thousands of
    connections per second would fill the memory between collections."""
    fake = FakeCollector()
    for _ in range(5):
        connection, transport = fake.connect()
        scenario(fake, connection, transport)
        connection.connection_lost(None)
        del connection, transport
        fake.disk.settle()
    assert 0 == counted()
    assert set() == fake.connections.open


def test_the_count_of_connections_sees_them(counted: Callable[[], int]) -> None:
    """Otherwise the test above could not fail."""
    fake = FakeCollector()
    pairs = [fake.connect() for _ in range(3)]
    assert 3 == counted()
    for connection, _ in pairs:
        connection.data_received(http(TRACK, b"POST", [b"Content-Length: 1"]))
    assert 6 == counted()  # each with its parser
    for connection, _ in pairs:
        connection.connection_lost(None)
    assert 3 == counted()
    del connection, pairs
    assert 0 == counted()


def test_a_lost_connection_releases_its_transport() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.connection_lost(None)
    assert 2 == sys.getrefcount(transport)
    fake.disk.settle()


def test_a_connection_is_kept_only_until_its_event_is_stored(counted: Callable[[], int]) -> None:
    fake = FakeCollector()
    connection, _ = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    connection.connection_lost(None)
    del connection
    assert 1 == counted()  # the commit refers to it; the parser is freed
    fake.disk.settle()
    assert 0 == counted()
