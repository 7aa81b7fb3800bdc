"""A peer that does not read its responses is not read from, and loses nothing by it."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from pixelfast.collect import Connection
from tests.collect.peers import connect_narrow
from tests.collect.wire import TRACK, events, http, read_responses, statuses
from tests.fakes import FakeCollector, SocketTransport

MAX_RESPONSE_BYTES = 32_768  # that one connection may wait for
NOT_FOUND = http(b"/")
TINY = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"


def numbered(count: int) -> tuple[bytes, list[str | None]]:
    """Requests of different kinds, and what tells their responses apart, in order."""
    requests: list[bytes] = []
    expected: list[str | None] = []
    for number in range(count):
        if number % 7 == 3:
            requests.append(NOT_FOUND)
            expected.append(None)
        else:
            origin = f"https://{number}.example"
            requests.append(http(headers=[b"Origin: " + origin.encode()]))
            expected.append(origin)
    return b"".join(requests), expected


def origins(sent: bytes) -> list[str | None]:
    return [
        response.headers.get("Access-Control-Allow-Origin") for response in read_responses(sent)
    ]


def test_while_writing_is_paused_nothing_is_written(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + NOT_FOUND)
    connection.pause_writing()
    fake.settle()
    assert b"" == transport.sent
    assert 1 == len(events(fake))
    connection.resume_writing()
    assert [200, 404] == statuses(transport.sent)
    assert 1 == len(transport.writes)


def test_while_writing_is_paused_nothing_is_read(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.pause_writing()
    connection.data_received(NOT_FOUND * 3 + http())
    assert not transport.is_reading
    fake.settle()
    assert (b"", 0, []) == (transport.sent, fake.connections.requests, events(fake))
    connection.resume_writing()
    assert transport.is_reading
    assert [404] * 3 == statuses(transport.take())
    fake.settle()
    assert [200] == statuses(transport.sent)


def test_data_received_after_pause_reading_is_kept(fake: FakeCollector) -> None:
    """A transport may hand over what it had read when it was told to stop."""
    connection, transport = fake.connect()
    data, expected = numbered(20)
    connection.pause_writing()
    for start in range(0, len(data), 100):
        connection.data_received(data[start : start + 100])
    assert b"" == transport.sent
    connection.resume_writing()
    fake.settle()
    assert expected == origins(transport.sent)


def test_a_pause_within_a_read_stops_after_a_limited_part_of_it() -> None:
    fake = FakeCollector()
    connection, transport = connect_narrow(fake, 1000)
    connection.data_received(NOT_FOUND)
    connection.data_received(TINY * 20_000)
    assert not transport.is_reading
    assert transport.is_paused
    assert transport.max_held_bytes < MAX_RESPONSE_BYTES + 1000
    rounds = 0
    while transport.is_paused:
        transport.take_bytes(2**30)
        rounds += 1
    assert rounds > 10
    assert [404] * 20_001 == statuses(transport.sent)
    assert transport.is_reading


def test_5000_pipelined_requests_get_their_responses_in_order(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    data, expected = numbered(5000)
    connection.data_received(data)
    fake.settle()
    assert expected == origins(transport.sent)
    assert sum(origin is not None for origin in expected) == len(fake.disk.events())
    assert transport.is_reading


def test_more_than_32_kib_of_pending_responses_pause_reading(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    fed = 0
    while transport.is_reading:
        connection.data_received(http() * 50)
        fed += 50
        assert fed <= 5000, "reads on without a bound"
    assert b"" == transport.sent
    read = fake.connections.requests
    fake.settle()
    assert transport.is_reading
    assert [200] * fed == statuses(transport.sent)
    assert fed == len(fake.disk.events())
    size = len(transport.sent) // fed
    estimate = size + 150  # at most: every response counts with its maximum size
    assert MAX_RESPONSE_BYTES // estimate <= read <= MAX_RESPONSE_BYTES // size + 1


def test_reading_continues_while_few_responses_are_pending(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    for _ in range(7):
        connection.data_received(http() * 10)
        assert transport.is_reading


def test_a_slow_disk_and_a_slow_peer_together_lose_nothing() -> None:
    fake = FakeCollector()
    connection, transport = connect_narrow(fake, 5000)
    data, expected = numbered(3000)
    position = 0
    for _ in range(100_000):
        if transport.is_reading and position < len(data):
            connection.data_received(data[position : position + 65536])
            position += 65536
        fake.loop.turn()
        if fake.disk.is_busy:
            fake.disk.complete()
        transport.take_bytes(3000)
        if position >= len(data) and not (fake.connections.held_bytes or transport.held_bytes):
            break
    assert expected == origins(transport.sent)


def test_the_last_response_waits_for_the_peer_too(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http() + http(headers=[b"Connection: close"]))
    connection.pause_writing()
    fake.settle()
    assert not transport.has_eof
    connection.resume_writing()
    assert [200, 200] == statuses(transport.sent)
    assert transport.has_eof


def test_a_paused_peer_is_read_again_after_the_last_response(fake: FakeCollector) -> None:
    """Else its end would never be seen, and the connection would end only by the clock."""
    connection, transport = fake.connect()
    connection.pause_writing()
    connection.data_received(http(b"/", headers=[b"Connection: close"]) + b"x" * 100_000)
    assert not transport.is_reading
    connection.resume_writing()
    assert [404] == statuses(transport.sent)
    assert (True, True) == (transport.has_eof, transport.is_reading)


def test_one_slow_peer_does_not_delay_another(fake: FakeCollector) -> None:
    slow, of_slow = fake.connect()
    quick, of_quick = fake.connect()
    slow.data_received(http())
    quick.data_received(http())
    slow.pause_writing()
    fake.settle()
    assert (b"", [200]) == (of_slow.sent, statuses(of_quick.sent))


def test_pauses_without_pending_output_are_harmless(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    for _ in range(3):
        connection.pause_writing()
        connection.resume_writing()
    assert (b"", True) == (transport.sent, transport.is_reading)
    connection.data_received(NOT_FOUND)
    assert [404] == statuses(transport.sent)


def test_a_connection_may_go_away_while_it_is_paused(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http())
    connection.pause_writing()
    connection.data_received(http() * 10)
    connection.connection_lost(ConnectionResetError())
    fake.settle()
    assert b"" == transport.sent
    assert 1 == len(events(fake))  # the others were never read


@pytest.mark.parametrize("seed", range(30))
def test_random_pauses_lose_and_reorder_nothing(fake: FakeCollector, seed: int) -> None:
    choose = random.Random(seed)
    connection, transport = fake.connect()
    data, expected = numbered(400)
    position = 0
    is_paused = False
    while position < len(data) or is_paused or fake.disk.is_busy:
        step = choose.randrange(5)
        if step == 0 and transport.is_reading:
            size = choose.choice([1, 50, 1000, 40_000])
            connection.data_received(data[position : position + size] or b"\r\n")
            position += size
        elif step == 1 and not is_paused:
            connection.pause_writing()
            is_paused = True
            written = len(transport.sent)
        elif step == 2 and is_paused:
            assert written == len(transport.sent), "written while paused"
            is_paused = False
            connection.resume_writing()
        elif step == 3:
            fake.loop.turn()
        elif step == 4 and fake.disk.is_busy:
            fake.disk.complete()
    fake.settle()
    assert expected == origins(transport.sent)
    assert transport.is_reading


def test_fin_after_a_pause_loses_no_response(fake: FakeCollector) -> None:
    connection, transport = fake.connect()
    connection.data_received(http(TRACK) * 2)
    connection.pause_writing()
    assert connection.eof_received()
    fake.settle()
    connection.resume_writing()
    assert [200, 200] == statuses(transport.sent)


Full = tuple[FakeCollector, Connection, SocketTransport]


@pytest.fixture
def full(request: pytest.FixtureRequest) -> Iterator[Full]:
    """A connection whose socket takes a few responses at once, as a stream or as messages."""
    fake = FakeCollector()
    transport = SocketTransport(kind=request.param, buffer_bytes=1)
    connection = fake.connections.connect()
    transport.attach(connection)
    yield fake, connection, transport
    transport.close_sockets()


STREAM = pytest.mark.parametrize("full", [socket.SOCK_STREAM], indirect=True, ids=["stream"])
MESSAGES = pytest.mark.parametrize("full", [socket.SOCK_SEQPACKET], indirect=True, ids=["messages"])


@STREAM
def test_the_transport_gets_the_rest_of_a_partial_write(full: Full) -> None:
    fake, connection, transport = full
    connection.data_received(NOT_FOUND * 100)
    (left_over,) = transport.left_over
    assert left_over == len(transport.held) == fake.connections.held_bytes
    assert not transport.is_reading
    taken = 0
    while transport.receive(1):
        taken += 1
        if transport.held:
            assert left_over == fake.connections.held_bytes, "counted until all of it is sent"
    assert taken > left_over
    assert [404] * 100 == statuses(transport.sent)
    assert (0, True) == (fake.connections.held_bytes, transport.is_reading)


@MESSAGES
def test_the_transport_gets_the_whole_write_that_a_full_socket_rejects(full: Full) -> None:
    fake, connection, transport = full
    while not transport.held:
        connection.data_received(NOT_FOUND * 3)
    count = fake.connections.requests
    assert count > 3
    assert [len(transport.held)] == transport.left_over
    assert [404] * 3 == statuses(bytes(transport.held))
    assert [404] * count == statuses(transport.sent)


@STREAM
@pytest.mark.parametrize("seed", range(20))
def test_random_partial_writes_lose_and_reorder_nothing(full: Full, seed: int) -> None:
    choose = random.Random(seed)
    fake, connection, transport = full
    data, expected = numbered(400)
    position = 0
    while position < len(data) or transport.held or fake.disk.is_busy:
        step = choose.randrange(4)
        if step == 0 and transport.is_reading and position < len(data):
            size = choose.choice([1, 50, 1000, 40_000])
            connection.data_received(data[position : position + size])
            position += size
        elif step == 1:
            transport.receive(choose.choice([1, 100, 5000, 50_000]))
        elif step == 2:
            fake.loop.turn()
        elif fake.disk.is_busy:
            fake.disk.complete()
    while fake.disk.is_busy or fake.connections.held_bytes or transport.receive():
        fake.disk.settle()
        transport.receive()
    assert expected == origins(transport.sent)
    assert len(transport.left_over) > 1
    assert transport.is_reading


@STREAM
def test_the_end_comes_after_the_last_byte_of_the_last_response(full: Full) -> None:
    _, connection, transport = full
    connection.data_received(NOT_FOUND * 60 + http(b"/", headers=[b"Connection: close"]))
    while transport.held:
        assert not transport.has_peer_eof
        transport.receive(100)
    assert [404] * 61 == statuses(transport.sent)
    assert transport.has_peer_eof
