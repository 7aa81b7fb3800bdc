"""Five pitfalls of HTTP servers that use httptools, with a test for each."""

from __future__ import annotations

import pytest
import structlog.testing

from tests.collect.wire import TRACK, events, feed, http, read_responses, statuses
from tests.fakes import FakeCollector


@pytest.mark.parametrize("piece_bytes", [1000, 10**9])
def test_trap_1_the_parser_has_no_limits(piece_bytes: int) -> None:
    """It accepts a target of 200,000 bytes in pieces, and any number of headers of any size."""
    too_much = {
        414: http(TRACK + b"&a=" + b"x" * 200_000),
        431: http(headers=[b"X-%d: y" % number for number in range(1000)]),
        413: http(TRACK, b"POST", [b"Content-Length: 200000"], b"x" * 200_000),
    }
    too_large_headers = http(headers=[b"X-%d: %b" % (n, b"y" * 5000) for n in range(50)])
    for status, request in [*too_much.items(), (431, too_large_headers)]:
        fake = FakeCollector()
        connection, transport = fake.connect()
        feed(connection, request, piece_bytes)
        fake.disk.settle()
        assert [status] == statuses(transport.sent)
        assert [] == events(fake)


def test_trap_2_an_exception_in_a_callback_is_not_the_fault_of_the_client() -> None:
    """The parser wraps it in a subclass of the exception for malformed requests."""
    fake = FakeCollector()

    def fail(*_: object, **__: object) -> bytes:
        raise ValueError("a bug")

    fake.collector.responses.not_found = fail  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        sent = fake.exchange(http(b"/"))
    assert [500] == statuses(sent)
    assert ["error"] == [entry["log_level"] for entry in logs]


@pytest.mark.parametrize("piece_bytes", [1, 10**9])
@pytest.mark.parametrize("after", [b"x", b"\r\n\r\n", http(), b"\x00" * 20_000])
def test_trap_3_bytes_after_connection_close_do_not_affect_its_response(
    after: bytes, piece_bytes: int
) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, http(headers=[b"Connection: close"]) + after, piece_bytes)
    fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (200, True, True) == (response.status, response.closes, transport.has_eof)
    assert 1 == len(events(fake))


def test_trap_4_pipelined_requests_get_responses_in_order_and_only_while_the_peer_reads() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(
        http(headers=[b"Origin: https://first.example"])
        + http(b"/")
        + http(headers=[b"Origin: https://second.example"])
    )
    fake.connections.on_stored([connection], 2, True)  # the second event before the first
    assert b"" == transport.sent
    connection.pause_writing()
    fake.connections.on_stored([connection], 1, True)
    assert b"" == transport.sent
    connection.resume_writing()
    first, other, second = read_responses(transport.sent)
    assert "https://first.example" == first.headers["Access-Control-Allow-Origin"]
    assert 404 == other.status
    assert "https://second.example" == second.headers["Access-Control-Allow-Origin"]


def test_trap_5_the_event_of_a_client_that_leaves_is_kept() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    assert fake.disk.is_busy
    connection.connection_lost(ConnectionResetError())
    fake.disk.settle()
    assert ["u1"] == [event["userId"] for event in events(fake)]
    assert b"" == transport.sent
    assert 1 == fake.connections.dropped_responses
