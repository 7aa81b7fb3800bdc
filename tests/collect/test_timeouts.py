"""Timeouts, on a clock that only the tests move."""

from __future__ import annotations

import pytest

from pixelfast.collect import Connection
from tests.collect.peers import connect_narrow
from tests.collect.wire import GIF, PIXEL_HEADERS, TRACK, http, is_over, read_responses, statuses
from tests.fakes import FakeCollector, FakeTransport

HEADER_S, IDLE_S, LINGER_S = 10.0, 75.0, 2.0
CLOSING = http(headers=[b"Connection: close"])


def pass_time(fake: FakeCollector, seconds: float) -> None:
    fake.clock.advance(seconds)
    fake.connections.sweep()


def start(fake: FakeCollector, data: bytes = b"") -> tuple[Connection, FakeTransport]:
    connection, transport = fake.connect()
    if data:
        connection.data_received(data)
        fake.disk.settle()
    return connection, transport


@pytest.mark.parametrize(
    "part",
    [
        b"G",
        b"GET ",
        b"GET /pixel",
        http()[:-2],
        http()[:-1],
        http(TRACK, b"POST", [b"Content-Length: 5"], b"abc"),
        http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"3\r\nab"),
        http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"0\r\nT: "),
    ],
    ids=["G", "method", "target", "one-line", "one-byte", "body", "chunk", "trailer"],
)
def test_a_request_must_be_complete_after_ten_seconds(fake: FakeCollector, part: bytes) -> None:
    connection, transport = start(fake, part)
    pass_time(fake, HEADER_S - 0.1)
    assert (b"", False) == (transport.sent, is_over(transport))
    pass_time(fake, 0.2)
    (response,) = read_responses(transport.sent)
    assert (408, "request-timeout", GIF) == (response.status, response.reason, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert (True, True) == (response.closes, transport.has_eof)
    connection.data_received(http())  # too late
    fake.disk.settle()
    assert [408] == statuses(transport.sent)


def test_a_slow_stream_of_bytes_does_not_extend_the_timeout(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    began_ms = fake.clock.now_ms()
    for byte in http():
        connection.data_received(bytes([byte]))
        pass_time(fake, 0.5)
        if is_over(transport):
            break
    assert [408] == statuses(transport.sent)
    assert HEADER_S <= (fake.clock.now_ms() - began_ms) / 1000 <= HEADER_S + 1


def test_the_time_counts_from_the_first_byte_of_each_request(fake: FakeCollector) -> None:
    connection, transport = start(fake, http())
    for _ in range(5):
        pass_time(fake, HEADER_S - 1)
        connection.data_received(http()[:20])
        pass_time(fake, HEADER_S - 1)
        connection.data_received(http()[20:])
        fake.disk.settle()
    assert [200] * 6 == statuses(transport.sent)


def test_a_request_that_begins_in_the_read_of_another_has_ten_seconds_too(
    fake: FakeCollector,
) -> None:
    for part in (b"GET /pixel", b"GE"):
        _, transport = start(fake, http() + part)
        pass_time(fake, HEADER_S - 0.1)
        assert [200] == statuses(transport.sent)
        pass_time(fake, 0.2)
        assert [200, 408] == statuses(transport.sent), part


def test_a_line_end_after_a_request_does_not_start_another_request(fake: FakeCollector) -> None:
    """Some clients send one after a body; servers should ignore it (RFC 9112 section 2.2)."""
    connection, transport = start(fake, http())
    connection.data_received(b"\r\n")
    pass_time(fake, HEADER_S + 1)
    assert [200] == statuses(transport.sent)
    assert not is_over(transport)


def test_an_idle_connection_is_closed_after_75_seconds(fake: FakeCollector) -> None:
    for data in (b"", http(), http(b"/") * 3):
        _, transport = start(fake, data)
        pass_time(fake, IDLE_S - 0.1)
        assert not is_over(transport)
        transport.take()
        pass_time(fake, 0.2)
        assert (b"", True) == (transport.sent, is_over(transport))


def test_each_request_restarts_the_idle_time(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    for _ in range(5):
        pass_time(fake, IDLE_S - 1)
        connection.data_received(http())
        fake.disk.settle()
    assert [200] * 5 == statuses(transport.sent)
    assert not is_over(transport)


def test_a_connection_that_waits_for_the_disk_is_not_idle(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    connection.data_received(http() + http()[:10])
    pass_time(fake, IDLE_S * 2)
    assert (b"", False) == (transport.sent, is_over(transport))
    fake.disk.settle()
    assert [200] == statuses(transport.sent)


def test_the_timeouts_are_settings() -> None:
    fake = FakeCollector(connections={"header_timeout_s": 1.0, "idle_timeout_s": 3.0})
    (slow, of_slow), (_, of_idle) = fake.connect(), fake.connect()
    slow.data_received(b"GET")
    pass_time(fake, 1.1)
    assert (True, False) == (is_over(of_slow), is_over(of_idle))
    pass_time(fake, 2.0)
    assert is_over(of_idle)


def test_the_peer_has_two_seconds_to_close_after_the_last_response(fake: FakeCollector) -> None:
    """If it closed immediately, unread bytes would make the kernel reset the connection."""
    connection, transport = start(fake, CLOSING + b"more")
    assert [200] == statuses(transport.sent)
    assert (True, False, False) == (transport.has_eof, transport.is_closed, transport.is_aborted)
    pass_time(fake, LINGER_S - 0.1)
    connection.data_received(b"and more")
    assert not transport.is_aborted
    pass_time(fake, 0.2)
    assert transport.is_aborted
    assert [200] == statuses(transport.sent)


def test_a_peer_that_closes_after_the_last_response_is_closed_immediately(
    fake: FakeCollector,
) -> None:
    connection, transport = start(fake, CLOSING)
    assert transport.has_eof
    assert not connection.eof_received()  # False: the transport closes


def test_the_two_seconds_begin_with_the_last_response(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    connection.data_received(CLOSING)
    pass_time(fake, 30.0)
    assert not is_over(transport)
    fake.disk.settle()
    assert transport.has_eof
    pass_time(fake, LINGER_S - 0.1)
    assert not transport.is_aborted


def test_a_peer_that_does_not_read_is_aborted_after_the_idle_timeout(fake: FakeCollector) -> None:
    connection, transport = start(fake, http())
    connection.pause_writing()
    connection.data_received(http())
    pass_time(fake, IDLE_S - 0.1)
    assert not is_over(transport)
    pass_time(fake, 0.2)
    assert transport.is_aborted


def test_a_peer_that_resumes_reading_in_time_is_not_aborted(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    for _ in range(4):
        connection.data_received(http())
        connection.pause_writing()
        pass_time(fake, IDLE_S - 1)
        connection.resume_writing()
        fake.disk.settle()
    assert [200] * 4 == statuses(transport.sent)
    assert not is_over(transport)


def test_lingering_does_not_cut_off_responses_to_a_slow_peer(
    fake: FakeCollector,
) -> None:
    """The two seconds begin when the peer has all responses, not while it still reads."""
    connection, transport = connect_narrow(fake, 1000)
    connection.data_received(http(b"/") * 50 + http(b"/", headers=[b"Connection: close"]))
    assert transport.is_paused
    for _ in range(6):
        pass_time(fake, 1.0)
        transport.take_bytes(2000)
    assert transport.held_bytes
    assert not transport.is_aborted


def test_a_client_that_half_closes_still_gets_its_responses(fake: FakeCollector) -> None:
    connection, transport = start(fake)
    connection.data_received(http() + http(b"/") + http(TRACK, b"HEAD"))
    assert connection.eof_received()  # True: the transport stays open for writing
    fake.disk.settle()
    assert [200, 404, 200] == statuses(transport.sent, b"GET", b"GET", b"HEAD")
    assert is_over(transport)
    pass_time(fake, LINGER_S + 0.1)
    assert transport.is_closed or transport.is_aborted


def test_a_connection_is_closed_immediately_after_both_sides_have_sent_fin(
    fake: FakeCollector,
) -> None:
    """Lingering would be pointless: the peer has already sent FIN."""
    connection, transport = start(fake)
    connection.data_received(http())
    assert connection.eof_received()
    fake.disk.settle()
    assert [200] == statuses(transport.sent)
    assert transport.is_closed


def test_a_client_that_half_closes_within_a_request_gets_the_responses_before_it(
    fake: FakeCollector,
) -> None:
    connection, transport = start(fake)
    connection.data_received(http() + http()[:-3])
    assert connection.eof_received()
    fake.disk.settle()
    assert [200] == statuses(transport.sent)
    assert is_over(transport)
    assert 1 == len(fake.disk.events())


@pytest.mark.parametrize("data", [b"", b"GET", http(b"/"), http()])
def test_a_client_that_half_closes_without_pending_responses_is_closed(
    fake: FakeCollector, data: bytes
) -> None:
    connection, transport = start(fake, data)
    transport.take()
    assert not connection.eof_received()
    assert b"" == transport.sent


def test_sweeping_closes_only_connections_that_time_out(fake: FakeCollector) -> None:
    old = [fake.connect() for _ in range(50)]
    fake.clock.advance(IDLE_S / 2)
    young = [fake.connect() for _ in range(50)]
    pass_time(fake, IDLE_S / 2 + 1)
    assert [True] * 50 == [transport.is_closed for _, transport in old]
    assert [False] * 50 == [is_over(transport) for _, transport in young]


def test_sweeping_a_closed_connection_is_harmless(fake: FakeCollector) -> None:
    connection, transport = start(fake, http()[:10])
    connection.connection_lost(None)
    pass_time(fake, 1000.0)
    assert (b"", False) == (transport.sent, is_over(transport))
