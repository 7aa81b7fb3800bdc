"""The memory that clients can occupy, each and together, whatever they send."""

from __future__ import annotations

import errno
import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import structlog.testing

from pixelfast.collect import Connection
from pixelfast.config import Source, WriteKey
from tests.collect.peers import NarrowTransport, connect_narrow
from tests.collect.wire import TRACK, fail_commit, feed, http, statuses
from tests.fakes import DEMO, FakeCollector

MAX_MEMORY = 2**20
READ_BYTES = 32_768  # of one read, limited by the socket's buffer
MAX_BYTES_EACH = 66_560 + 32_768  # a head, responses
# The maximum size of one read: the socket's buffer, which the kernel doubles. A Unix socket may
# fill the whole buffer of uvloop.
LARGEST_READS = {"TCP": 65_536, "a Unix socket": 256_000}
# Memory of a connection that is not counted: its objects, a parser, and the transport of these
# tests.
OBJECT_BYTES_EACH = 2560
CHUNKED = [b"Transfer-Encoding: chunked"]
LARGE_HEAD = http(TRACK + b"&_=" + b"x" * 32_000, headers=[b"A: " + b"a" * 400] * 70)
HALF_TARGET = b"GET " + TRACK + b"&_=" + b"x" * 32_000

# The input of a hostile client: first once, and then repeatedly.
PATTERNS = {
    "pipelines and does not read": (http() * 75, http() * 75),
    "pipelines other paths": (http(b"/") * 100, http(b"/") * 100),
    "pipelines with an origin": (http(headers=[b"Origin: " + b"o" * 400]) * 40, b""),
    "half a target": (HALF_TARGET, b""),
    "half a head": (LARGE_HEAD[:-2], b""),
    "a head of short lines": (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 8000, b"a:\r\n"),
    "half a body": (LARGE_HEAD[:-2] + b"Content-Length: 9\r\n\r\n12345", b""),
    "half a body in chunks": (LARGE_HEAD[:-2] + CHUNKED[0] + b"\r\n\r\n5\r\n12", b"3"),
    "half a body behind long headers": (
        http(TRACK, b"POST", [b"Content-Length: 9", b"Referer: " + b"r" * 30_000], b"1234"),
        b"",
    ),
    "half a trailer": (http(TRACK, b"POST", CHUNKED, b"0\r\nT: " + b"t" * 8000), b""),
    "one byte at a time": (b"GET /", b"x"),
    "blank lines": (b"\r\n" * 8000, b"\r\n"),
}


@pytest.fixture
def fake() -> FakeCollector:
    return FakeCollector(connections={"max_memory": MAX_MEMORY})


def receive(connection: Connection, data: bytes) -> None:
    feed(connection, data, READ_BYTES)


def receive_anew(connection: Connection, data: bytes) -> None:
    """Receive a copy of the bytes, as from a transport, so that connections do not share them."""
    connection.data_received(bytes(bytearray(data)))


def more_of(name: str, way: str) -> bytes:
    """Return the next piece of a pattern, which fills a read if requests are pipelined."""
    first, more = PATTERNS[name]
    limit = LARGEST_READS[way]
    return (first * (limit // len(first) + 1))[:limit] if name.startswith("pipelines") else more


def close_all(pairs: list[tuple[Connection, NarrowTransport]]) -> int:
    """Close connections whose peers have read nothing, and return the freed bytes."""
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    while pairs:
        pairs.pop()[0].connection_lost(None)
    gc.collect()
    return before - tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def connect(fake: FakeCollector) -> tuple[Connection, NarrowTransport]:
    return connect_narrow(fake, 0)


@pytest.mark.parametrize("name", PATTERNS)
def test_one_client_holds_at_most_its_share(name: str) -> None:
    fake = FakeCollector()
    connection, transport = connect(fake)
    first, more = PATTERNS[name]
    receive(connection, first)
    fake.disk.settle()
    for _ in range(200):
        if transport.is_reading and not transport.has_eof:
            receive(connection, more)
        fake.disk.settle()
        assert fake.connections.held_bytes <= MAX_BYTES_EACH
        assert transport.held_bytes <= 34_000


@pytest.mark.parametrize("name", PATTERNS)
def test_all_clients_together_hold_at_most_max_memory(fake: FakeCollector, name: str) -> None:
    first, more = PATTERNS[name]
    pairs = []
    for _ in range(300):
        pairs.append(connect(fake))
        receive(pairs[-1][0], first)
        fake.disk.settle()
        fake.clock.advance(0.01)
        assert fake.connections.held_bytes <= MAX_MEMORY
    for connection, transport in pairs:
        if more and transport.is_reading and not transport.is_aborted:
            receive(connection, more)
            fake.disk.settle()
            assert fake.connections.held_bytes <= MAX_MEMORY
    transports = [transport for _, transport in pairs]
    evicted = [transport.is_aborted for transport in transports]
    assert sum(evicted) == fake.connections.evicted
    # Only the oldest connections were evicted.
    assert evicted == sorted(evicted, reverse=True)
    assert not evicted[-1]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("way", LARGEST_READS)
@pytest.mark.parametrize("name", PATTERNS)
def test_the_memory_of_clients_is_counted_correctly(
    fake: FakeCollector, name: str, way: str
) -> None:
    first, more = PATTERNS[name][0], more_of(name, way)
    pairs = []
    for _ in range(300):
        connection, transport = connect(fake)
        pairs.append((connection, transport))
        receive_anew(connection, first)
        fake.disk.settle()
        if more and not transport.is_aborted:
            # A transport may still deliver data that it read before `pause_reading`.
            receive_anew(connection, more)
            fake.disk.settle()
        fake.clock.advance(0.01)
        assert fake.connections.held_bytes <= MAX_MEMORY
    pairs = [pair for pair in pairs if not pair[1].is_aborted]
    del connection, transport
    open_now, counted = len(pairs), fake.connections.held_bytes
    assert open_now == len(fake.connections.open)
    taken = close_all(pairs)
    assert abs(taken - counted) <= open_now * OBJECT_BYTES_EACH
    assert 0 == fake.connections.held_bytes


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("way", LARGEST_READS)
@pytest.mark.parametrize("name", PATTERNS)
def test_one_client_uses_at_most_its_share_and_one_read(name: str, way: str) -> None:
    fake = FakeCollector()
    connection, transport = connect(fake)
    receive_anew(connection, PATTERNS[name][0])
    fake.disk.settle()
    more = more_of(name, way)
    for turn in range(20):
        if more and (turn == 0 or transport.is_reading):
            receive_anew(connection, more)
        fake.disk.settle()
        assert fake.connections.held_bytes <= MAX_BYTES_EACH + LARGEST_READS[way]
    pairs = [(connection, transport)]
    del connection, transport
    assert close_all(pairs) <= MAX_BYTES_EACH + LARGEST_READS[way] + OBJECT_BYTES_EACH


def test_a_peer_that_does_not_read_is_immediately_not_read_from(fake: FakeCollector) -> None:
    connection, transport = connect(fake)
    receive(connection, http())
    assert transport.is_reading
    fake.disk.settle()
    assert not transport.is_reading
    transport.take_bytes(2**30)
    assert transport.is_reading


def test_memory_is_counted_to_the_byte_and_released(fake: FakeCollector) -> None:
    connection, transport = connect(fake)
    receive(connection, HALF_TARGET)
    assert len(HALF_TARGET) == fake.connections.held_bytes
    receive(connection, b" HTTP/1.1\r\nHost: x\r\n\r\n")
    fake.disk.settle()
    assert len(transport.sent) == transport.held_bytes == fake.connections.held_bytes
    transport.take_bytes(2**30)
    assert 0 == fake.connections.held_bytes
    head = http(TRACK, b"POST", [b"Content-Length: 3"])
    receive(connection, head + b"ab")
    assert len(head) == fake.connections.held_bytes
    connection.connection_lost(None)
    assert 0 == fake.connections.held_bytes


TOO_LONG = b"&properties.a=" + b'"' * 20_000
KINDS = {
    "pixel": (TRACK, b"GET"),
    "HEAD": (TRACK, b"HEAD"),
    "preflight": (TRACK, b"OPTIONS"),
    "another method": (TRACK, b"PUT"),
    "robots": (b"/robots.txt", b"GET"),
    "not found": (b"/", b"GET"),
    "no key": (b"/pixel/v1/track", b"GET"),
    "an unknown key": (b"/pixel/v1/track?writeKey=wk-who", b"GET"),
    "too many parameters": (TRACK + b"&a=1" * 300, b"GET"),
    "an event that is too large": (TRACK + TOO_LONG, b"GET"),
    "a target that is too long": (TRACK + b"x" * 40_000, b"GET"),
    "a method that does not exist": (TRACK, b"BREW"),
    "a rate limit": (b"/pixel/v1/page?writeKey=wk-slow&userId=u", b"GET"),
}
SLOW = Source(name="slow", write_keys=(WriteKey(key="wk-slow"),), rate_limit=1e-12)


@pytest.mark.parametrize("origin", [None, b"", b"https://shop.example", b"o" * 512, b"o" * 513])
@pytest.mark.parametrize("line", [b"X: y", b"Connection: keep-alive", b"Connection: close"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_stored", [True, False])
def test_a_response_takes_at_most_the_memory_counted_for_it(
    origin: bytes | None, line: bytes, kind: str, is_stored: bool
) -> None:
    fake = FakeCollector((DEMO, SLOW))
    target, method = KINDS[kind]
    fake.exchange(http(b"/pixel/v1/page?writeKey=wk-slow&userId=u"))
    connection, transport = fake.connect()
    before = http(headers=[b"Origin: before"])
    connection.data_received(before)
    of_first = fake.connections.held_bytes
    headers = [line] if origin is None else [line, b"Origin: " + origin]
    connection.data_received(http(target, method, headers))
    counted = fake.connections.held_bytes
    if is_stored:
        fake.disk.settle()
    else:
        with structlog.testing.capture_logs():
            fake.loop.turn()
            fail_commit(fake, errno.EIO)
    first, taken = transport.sent.split(b"HTTP/1.1 ")[1:]
    assert len(b"HTTP/1.1 " + first) <= of_first
    assert len(b"HTTP/1.1 " + taken) <= counted - of_first <= len(b"HTTP/1.1 " + taken) + 162


def test_a_client_that_reads_is_not_evicted_for_others(fake: FakeCollector) -> None:
    good, of_good = fake.connect()
    for number in range(100):
        connection, _ = connect(fake)
        receive(connection, HALF_TARGET)
        fake.clock.advance(0.01)
        receive(good, http(TRACK + b"&properties.n=%d" % number))
        fake.disk.settle()
        assert [200] == statuses(of_good.take())
    assert fake.connections.evicted > 50
    assert not of_good.is_aborted
    assert 100 == len(fake.disk.events())


def test_an_idle_client_is_not_evicted_for_others(fake: FakeCollector) -> None:
    idle, of_idle = fake.connect()
    receive(idle, http())
    fake.disk.settle()
    for _ in range(100):
        receive(connect(fake)[0], HALF_TARGET)
    assert fake.connections.evicted > 50
    assert (False, [200]) == (of_idle.is_aborted, statuses(of_idle.sent))


def test_the_events_of_an_evicted_client_are_kept(fake: FakeCollector) -> None:
    for _ in range(100):
        connection, _ = connect(fake)
        receive(connection, http() * 70)  # their responses wait for the disk
        fake.clock.advance(0.01)
    assert fake.connections.evicted > 10
    evicted = fake.connections.evicted
    fake.disk.settle()
    assert 7000 == len(fake.disk.events())
    assert evicted * 70 <= fake.connections.dropped_responses


def test_evicted_connections_are_logged_once_per_sweep(fake: FakeCollector) -> None:
    for _ in range(100):
        receive(connect(fake)[0], HALF_TARGET)
    with structlog.testing.capture_logs() as logs:
        fake.connections.sweep()
        fake.connections.sweep()
    (entry,) = logs
    assert ("connections_evicted", "warning", fake.connections.evicted, MAX_MEMORY) == (
        entry["event"],
        entry["log_level"],
        entry["count"],
        entry["max_memory"],
    )


def test_a_closed_connection_ignores_all_calls(fake: FakeCollector) -> None:
    connection, transport = connect(fake)
    receive(connection, HALF_TARGET)
    for _ in range(100):
        fake.clock.advance(0.01)
        receive(connect(fake)[0], HALF_TARGET)
    assert transport.is_aborted
    for late in (
        lambda: receive(connection, b"x"),
        connection.resume_writing,
        connection.pause_writing,
        connection.eof_received,
        lambda: connection.connection_lost(None),
        fake.connections.sweep,
    ):
        late()
    assert b"" == transport.sent
    assert connection not in fake.connections.open


@pytest.mark.parametrize("seed", range(20))
def test_the_count_of_held_bytes_never_drifts(seed: int) -> None:
    choose = random.Random(seed)
    fake = FakeCollector(connections={"max_memory": 2**18 + 2**16 * choose.randrange(8)})
    pairs = [connect(fake) for _ in range(10)]

    def send(connection: Connection, transport: NarrowTransport) -> None:
        if transport.is_reading:
            first, more = choose.choice(list(PATTERNS.values()))
            receive(connection, choose.choice([first, more]))

    steps: list[Callable[[Connection, NarrowTransport], object]] = [
        send,
        lambda _, transport: transport.take_bytes(choose.choice([1, 1000, 2**30])),
        lambda _connection, _transport: fake.disk.settle(),
        lambda _connection, _transport: fake.clock.advance(0.5),
        lambda _connection, _transport: fake.connections.sweep(),
    ]
    for _ in range(500):
        place = choose.randrange(len(pairs))
        choose.choice(steps)(*pairs[place])
        if pairs[place][1].is_aborted or choose.random() < 0.02:
            pairs[place][0].connection_lost(None)
            pairs[place] = connect(fake)
        assert 0 <= fake.connections.held_bytes
    for connection, _ in pairs:
        connection.connection_lost(None)
    assert 0 == fake.connections.held_bytes


def test_a_repeated_header_is_kept_once() -> None:
    fake = FakeCollector(trusted_proxies=["192.0.2.0/24"])
    connection, _ = fake.connect()
    request = http(
        TRACK,
        b"POST",
        [b"Content-Length: 1"] + [b"X-Forwarded-For: " + b"192.0.2.7," * 30 + b"192.0.2.7"] * 90,
    )
    tracemalloc.start()
    try:
        connection.data_received(request)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept <= 3 * len(request)
    assert peak <= 6 * len(request)
