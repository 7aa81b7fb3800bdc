"""Draining: what is under way is answered and the last on its connection; nothing new begins."""

from __future__ import annotations

import errno

import pytest
import structlog.testing

from tests.collect.wire import TRACK, events, fail_commit, http, is_over, read_answers, statuses
from tests.fakes import FakeCollector


def test_idle_connections_are_closed(fake: FakeCollector) -> None:
    used, of_used = fake.connect()
    used.data_received(http(b"/"))
    of_used.take()
    fake.connections.drain()
    assert (b"", True) == (of_used.sent, is_over(of_used))
    used.data_received(http())  # was on its way: the client sends it to another
    fake.disk.settle()
    assert b"" == of_used.sent
    assert [] == events(fake)


def test_a_connection_without_a_request_so_far_has_one(fake: FakeCollector) -> None:
    """nginx sends a request again if a connection that was kept is closed, and not on a new one."""
    connection, transport = fake.connect()
    fake.connections.drain()
    fake.clock.advance(0.9)
    fake.connections.sweep()
    assert not is_over(transport)
    connection.data_received(http() * 2)
    fake.disk.settle()
    (answer,) = read_answers(transport.sent)
    assert (200, True, True) == (answer.status, answer.closes, transport.has_eof)
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
def test_a_request_under_way_is_answered_with_connection_close(
    fake: FakeCollector, part_bytes: int
) -> None:
    connection, transport = fake.connect()
    connection.data_received(http()[:part_bytes])
    fake.connections.drain()
    assert not is_over(transport)
    connection.data_received(http()[part_bytes:])
    fake.disk.settle()
    (answer,) = read_answers(transport.sent)
    assert (200, True, True) == (answer.status, answer.closes, transport.has_eof)
    assert 1 == len(events(fake))


def test_requests_that_wait_for_the_disk_are_answered_before_the_end(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http(b"/") + http(TRACK, b"POST"))
    fake.loop.turn()
    fake.connections.drain()
    assert (b"", False) == (transport.sent, is_over(transport))
    fake.disk.settle()
    assert [200, 404, 200] == statuses(transport.sent)
    assert transport.has_eof
    assert 2 == len(events(fake))


def test_the_last_of_the_requests_that_wait_says_connection_close(fake: FakeCollector) -> None:
    """Else the client may send the next one into the connection that is just being closed."""
    connection, transport = fake.connect()
    connection.data_received(http() * 2)
    fake.loop.turn()
    fake.connections.drain()
    fake.disk.settle()
    assert [False, True] == [answer.closes for answer in read_answers(transport.sent)]


def test_nothing_follows_an_answer_with_connection_close(fake: FakeCollector) -> None:
    """RFC 9112 section 9.6: no further request is processed, so no event of one may be stored: the
    client has to think that it was not, and sends it again."""
    connection, transport = fake.connect()
    connection.data_received(http()[:20])
    fake.connections.drain()
    connection.data_received(http()[20:] + http() * 2 + http(b"/"))
    fake.disk.settle()
    answers = read_answers(transport.sent)
    assert [(200, True)] == [(answer.status, answer.closes) for answer in answers]
    assert 1 == len(events(fake))


def test_a_request_behind_those_that_wait_is_answered_too(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http()[:20])
    fake.connections.drain()
    connection.data_received(http()[20:])
    fake.disk.settle()
    answers = read_answers(transport.sent)
    assert [(200, False), (200, True)] == [(answer.status, answer.closes) for answer in answers]
    assert 2 == len(events(fake))


def test_a_connection_that_comes_during_the_drain_has_one_request(fake: FakeCollector) -> None:
    fake.connections.drain()
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.data_received(http())
    fake.disk.settle()
    (answer,) = read_answers(transport.sent)
    assert (200, True, True) == (answer.status, answer.closes, transport.has_eof)


def test_a_request_that_never_ends_is_cut_off_during_a_drain_too(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(b"GET /")
    fake.connections.drain()
    fake.clock.advance(10.1)
    fake.connections.sweep()
    assert [408] == statuses(transport.sent)
    assert transport.has_eof


def test_a_commit_that_fails_during_a_drain_is_told(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    fake.connections.drain()
    with structlog.testing.capture_logs():
        fail_commit(fake, errno.ENOSPC)
    assert [503] == statuses(transport.sent)
    assert transport.has_eof


def test_a_peer_that_does_not_read_gets_its_answers_when_it_does(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.pause_writing()
    fake.connections.drain()
    fake.disk.settle()
    assert (b"", False) == (transport.sent, is_over(transport))
    connection.resume_writing()
    assert [200] == statuses(transport.sent)
    assert transport.has_eof


def test_requests_that_were_read_but_not_begun_are_neither_stored_nor_answered(
    fake: FakeCollector,
) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.pause_writing()
    connection.data_received(http() * 5)  # kept until the peer reads
    fake.connections.drain()
    fake.disk.settle()
    connection.resume_writing()
    fake.disk.settle()
    assert len(read_answers(transport.sent)) == len(events(fake))
    assert transport.has_eof


def test_draining_twice_is_draining_once(fake: FakeCollector) -> None:
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


def test_connections_that_linger_are_let_go(fake: FakeCollector) -> None:
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
