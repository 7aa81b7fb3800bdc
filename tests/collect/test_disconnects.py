"""Clients that go away: their events stay, and nothing of their connections does."""

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
    """How many connections and parsers live, without the cycle collector ever running."""
    gc.collect()
    gc.disable()

    def count() -> int:
        return sum(type(each) in {Connection, HttpRequestParser} for each in gc.get_objects())

    before = count()
    yield lambda: count() - before
    gc.enable()


@pytest.mark.parametrize("error", [None, ConnectionResetError(), BrokenPipeError()])
def test_an_event_that_is_being_committed_stays(error: Exception | None) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() * 3)
    fake.loop.turn()
    connection.connection_lost(error)
    fake.disk.settle()
    assert (b"", 3, 3) == (transport.sent, len(events(fake)), fake.connections.dropped_responses)
    assert ({}, set()) == (fake.connections.responses, fake.connections.open)


def test_an_event_that_waits_for_the_next_commit_stays() -> None:
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


def test_a_client_that_goes_away_does_not_hear_of_a_failure_and_others_do() -> None:
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


def test_ready_answers_behind_a_pending_one_are_dropped_with_it() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() + http(b"/") * 2)
    connection.connection_lost(None)
    fake.disk.settle()
    assert (b"", 3) == (transport.sent, fake.connections.dropped_responses)


def test_another_client_at_the_same_address_hears_nothing_of_it() -> None:
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


def test_half_a_request_goes_with_its_client() -> None:
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
def test_a_peer_that_has_reset_its_connection_can_not_be_told_its_end(request_: bytes) -> None:
    """That raises out of no callback, so that the others of the commit hear of their events."""
    fake = FakeCollector()
    (gone, of_gone), (here, of_here) = connect_gone(fake), fake.connect()
    gone.data_received(request_)
    here.data_received(http())
    gone.eof_received()
    fake.disk.settle()
    assert [200] == statuses(of_here.sent)
    assert of_gone.is_closed or of_gone.is_aborted


def test_a_drain_goes_on_past_a_peer_that_has_reset_its_connection() -> None:
    fake = FakeCollector()
    for _ in range(3):
        connection, _ = connect_gone(fake)
        connection.data_received(http(b"/"))
    fake.connections.drain()


def converse_plainly(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    connection.data_received(http() * 3 + http(b"/"))
    fake.disk.settle()


def say_nothing(_fake: FakeCollector, _connection: Connection, _: FakeTransport) -> None:
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


def meet_a_mistake_of_ours(fake: FakeCollector, connection: Connection, _: FakeTransport) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("a mistake of ours")

    fake.collector.responses.not_found = fail
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


STORIES = [
    converse_plainly,
    say_nothing,
    stop_in_the_middle,
    leave_during_a_commit,
    send_garbage,
    break_a_limit,
    meet_a_mistake_of_ours,
    ask_for_an_upgrade,
    read_nothing,
    be_too_slow,
    be_drained,
]


@pytest.mark.parametrize("story", STORIES)
def test_a_closed_connection_is_freed_without_the_cycle_collector(
    story: Callable[[FakeCollector, Connection, FakeTransport], None],
    counted: Callable[[], int],
) -> None:
    """The parser holds methods of its connection, which holds the parser: a cycle, if left alone.
    A process that serves thousands of connections a second would fill up between collections."""
    fake = FakeCollector()
    for _ in range(5):
        connection, transport = fake.connect()
        story(fake, connection, transport)
        connection.connection_lost(None)
        del connection, transport
        fake.disk.settle()
    assert 0 == counted()
    assert set() == fake.connections.open


def test_the_count_of_connections_sees_them(counted: Callable[[], int]) -> None:
    """Else the test above would mean nothing."""
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


def test_a_transport_is_not_kept_by_a_connection_that_lost_it() -> None:
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
    assert 1 == counted()  # the commit has it; the parser is gone
    fake.disk.settle()
    assert 0 == counted()
