"""Draining: requests that have begun get a response, the last one on their connection."""

from __future__ import annotations

import errno

import pytest
import structlog.testing

from tests.collect.wire import TRACK, events, fail_commit, http, is_over, read_responses, statuses
from tests.fakes import FakeCollector


def test_idle_connections_are_closed(fake: FakeCollector) -> None:
    used, of_used = fake.connect()
    used.data_received(http(b"/"))
    of_used.take()
    fake.connections.drain()
    assert (b"", True) == (of_used.sent, is_over(of_used))
    used.data_received(http())  # too late: the client must send it to another server
    fake.disk.settle()
    assert b"" == of_used.sent
    assert [] == events(fake)


def test_a_drain_lets_a_new_connection_send_one_request(fake: FakeCollector) -> None:
    """nginx retries a request that fails on a reused connection, but not on a new one."""
    connection, transport = fake.connect()
    fake.connections.drain()
    fake.clock.advance(0.9)
    fake.connections.sweep()
    assert not is_over(transport)
    connection.data_received(http() * 2)
    fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (200, True, True) == (response.status, response.closes, transport.has_eof)
    assert 1 == len(events(fake))


@pytest.mark.parametrize("comes_late", [False, True])
def test_a_connection_that_sends_no_request_is_closed_a_second_later(
    fake: FakeCollector, comes_late: bool
) -> None:
    if comes_late:
        fake.connections.drain()
    _, transport = fake.connect()
    if not comes_late:
        fake.connections.drain()
    fake.connections.sweep()
    assert not is_over(transport)
    fake.clock.advance(1.1)
    fake.connections.sweep()
    assert (b"", True) == (transport.sent, is_over(transport))


@pytest.mark.parametrize("part_bytes", [3, 30, len(http()) - 1])
def test_a_partly_received_request_gets_a_response_with_connection_close(
    fake: FakeCollector, part_bytes: int
) -> None:
    connection, transport = fake.connect()
    connection.data_received(http()[:part_bytes])
    fake.connections.drain()
    assert not is_over(transport)
    connection.data_received(http()[part_bytes:])
    fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (200, True, True) == (response.status, response.closes, transport.has_eof)
    assert 1 == len(events(fake))


def test_requests_that_wait_for_the_disk_get_responses_before_the_end(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http(b"/") + http(TRACK, b"POST"))
    fake.loop.turn()
    fake.connections.drain()
    assert (b"", False) == (transport.sent, is_over(transport))
    fake.disk.settle()
    assert [200, 404, 200] == statuses(transport.sent)
    assert transport.has_eof
    assert 2 == len(events(fake))


def test_the_last_pending_response_has_connection_close(fake: FakeCollector) -> None:
    """Otherwise the client may send its next request over a connection that is being closed."""
    connection, transport = fake.connect()
    connection.data_received(http() * 2)
    fake.loop.turn()
    fake.connections.drain()
    fake.disk.settle()
    assert [False, True] == [response.closes for response in read_responses(transport.sent)]


def test_no_request_is_processed_after_connection_close(fake: FakeCollector) -> None:
    """See RFC 9112 section 9.6. The client assumes that later requests were not processed and
    retries them, so their events must not be stored."""
    connection, transport = fake.connect()
    connection.data_received(http()[:20])
    fake.connections.drain()
    connection.data_received(http()[20:] + http() * 2 + http(b"/"))
    fake.disk.settle()
    responses = read_responses(transport.sent)
    assert [(200, True)] == [(response.status, response.closes) for response in responses]
    assert 1 == len(events(fake))


def test_a_request_after_pending_ones_gets_its_response_too(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http()[:20])
    fake.connections.drain()
    connection.data_received(http()[20:])
    fake.disk.settle()
    responses = read_responses(transport.sent)
    assert [(200, False), (200, True)] == [
        (response.status, response.closes) for response in responses
    ]
    assert 2 == len(events(fake))


def test_a_connection_accepted_during_the_drain_serves_one_request(fake: FakeCollector) -> None:
    fake.connections.drain()
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.data_received(http())
    fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (200, True, True) == (response.status, response.closes, transport.has_eof)


def test_an_endless_request_times_out_during_a_drain_too(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(b"GET /")
    fake.connections.drain()
    fake.clock.advance(10.1)
    fake.connections.sweep()
    assert [408] == statuses(transport.sent)
    assert transport.has_eof


def test_a_commit_that_fails_during_a_drain_is_reported(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    fake.connections.drain()
    with structlog.testing.capture_logs():
        fail_commit(fake, errno.ENOSPC)
    assert [503] == statuses(transport.sent)
    assert transport.has_eof


def test_a_peer_gets_its_responses_once_it_reads(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.pause_writing()
    fake.connections.drain()
    fake.disk.settle()
    assert (b"", False) == (transport.sent, is_over(transport))
    connection.resume_writing()
    assert [200] == statuses(transport.sent)
    assert transport.has_eof


def test_a_drain_drops_requests_that_were_not_parsed(
    fake: FakeCollector,
) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.pause_writing()
    connection.data_received(http() * 5)  # held until the peer reads
    fake.connections.drain()
    fake.disk.settle()
    connection.resume_writing()
    fake.disk.settle()
    assert len(read_responses(transport.sent)) == len(events(fake))
    assert transport.has_eof


def test_a_second_drain_changes_nothing(fake: FakeCollector) -> None:
    pairs = [fake.connect() for _ in range(3)]
    pairs[0][0].data_received(http())
    pairs[1][0].data_received(http()[:10])
    pairs[2][0].data_received(http(b"/"))
    fake.connections.drain()
    fake.connections.drain()
    pairs[1][0].data_received(http()[10:])
    fake.disk.settle()
    assert [[200], [200], [404]] == [statuses(transport.sent) for _, transport in pairs]
    assert [True] * 3 == [transport.has_eof for _, transport in pairs]


def test_lingering_connections_are_closed_during_a_drain(fake: FakeCollector) -> None:
    pairs = [fake.connect() for _ in range(3)]
    for connection, _ in pairs:
        connection.data_received(http(b"/"))
    fake.connections.drain()
    fake.clock.advance(2.1)
    fake.connections.sweep()
    assert [True] * 3 == [transport.is_aborted for _, transport in pairs]
    for connection, _ in pairs:
        connection.connection_lost(None)
    assert set() == fake.connections.open
