"""TLS below a connection, in memory. The tests with the fixture `fake` also run over TLS."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from pixelfast.collect.connection import MAX_OVER_LIMIT
from pixelfast.collect.tls import TlsTransport
from tests.collect.wire import TRACK, events, http, read_responses, statuses
from tests.fakes import FakeCollector, FakeTransport, TlsFakeTransport
from tests.tls import TlsPeer, client_context, issue

RECORD_BYTES = 2**14


def start(**options: object) -> FakeCollector:
    return FakeCollector(has_tls=True, connections=options)


def begin(fake: FakeCollector) -> tuple[TlsTransport, FakeTransport]:
    """Open a connection whose client has not sent anything."""
    assert fake.tls is not None
    raw = FakeTransport()
    transport = fake.tls.connect()
    transport.connection_made(raw)  # type: ignore[arg-type]
    return transport, raw


def connect(fake: FakeCollector) -> tuple[TlsTransport, TlsFakeTransport]:
    assert fake.tls is not None
    raw = TlsFakeTransport()
    transport = fake.tls.connect()
    raw.attach(transport)
    return transport, raw


@pytest.mark.parametrize("piece_bytes", [1, 7, 100])
def test_records_may_arrive_in_pieces(piece_bytes: int) -> None:
    fake = start()
    transport, raw = connect(fake)
    records = raw.client.seal(http() * 3 + http(b"/"))
    for place in range(0, len(records), piece_bytes):
        transport.data_received(records[place : place + piece_bytes])
    fake.disk.settle()
    assert [200, 200, 200, 404] == statuses(raw.sent)
    assert 0 == fake.connections.held_bytes


def test_a_handshake_may_arrive_in_pieces() -> None:
    fake = start()
    transport, raw = begin(fake)
    for byte in TlsPeer().shake_hands():
        transport.data_received(bytes([byte]))
    assert raw.take().startswith(b"\x16\x03")  # the server's part of the handshake
    assert (1, 0) == (fake.connections.handshakes, len(fake.connections.open))


def test_requests_of_one_read_get_their_responses_in_one_write() -> None:
    fake = start()
    transport, raw = connect(fake)
    transport.data_received(b"".join(raw.client.seal(http(b"/")) for _ in range(20)))
    assert 1 == len(raw.writes)
    assert [404] * 20 == statuses(raw.sent)


def test_a_client_that_says_close_notify_gets_its_responses() -> None:
    """The TLS transports of the event loops drop responses that are not ready."""
    fake = start()
    transport, raw = connect(fake)
    transport.data_received(raw.client.seal(http() * 2) + raw.client.end())
    transport.data_received(raw.client.seal(b""))
    assert (b"", False) == (raw.sent, raw.is_closed)
    fake.disk.settle()
    assert [200, 200] == statuses(raw.sent)
    assert (True, True) == (raw.is_closed, raw.client.has_peer_ended)


def test_a_client_that_sends_fin_without_close_notify_gets_its_responses() -> None:
    fake = start()
    transport, raw = connect(fake)
    transport.data_received(raw.client.seal(http()))
    assert transport.eof_received()
    fake.disk.settle()
    assert [200] == statuses(raw.sent)
    assert raw.is_closed


def test_the_last_response_is_followed_by_close_notify_and_fin() -> None:
    fake = start()
    transport, raw = connect(fake)
    transport.data_received(raw.client.seal(http(headers=[b"Connection: close"])))
    fake.disk.settle()
    assert [200] == statuses(raw.sent)
    assert (True, True, False) == (raw.client.has_peer_ended, raw.has_eof, raw.is_closed)
    transport.data_received(b"whatever comes now")
    assert not transport.eof_received()  # False: the socket's transport closes


def test_an_incomplete_record_is_counted_and_limited() -> None:
    fake = start(max_memory=2**20)
    transport, raw = connect(fake)
    part = raw.client.seal(b"G" * RECORD_BYTES)[:-1]
    transport.data_received(part[:5000])
    assert 5000 == fake.connections.held_bytes
    transport.data_received(part[5000:])
    assert len(part) == fake.connections.held_bytes
    fake.clock.advance(1.0)  # it has held memory for the longest time
    for _ in range(2**20 // RECORD_BYTES):
        other, of_other = connect(fake)
        other.data_received(of_other.client.seal(b"G" * RECORD_BYTES)[:-1])
    assert fake.connections.held_bytes <= 2**20
    assert fake.connections.evicted > 0
    assert raw.is_aborted


def test_a_completed_record_is_not_counted() -> None:
    fake = start()
    transport, raw = connect(fake)
    records = raw.client.seal(http(b"/"))
    transport.data_received(records[:50])
    assert 50 == fake.connections.held_bytes
    transport.data_received(records[50:])
    assert ([404], 0) == (statuses(raw.sent), fake.connections.held_bytes)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    fake = start()
    transport, raw = connect(fake)
    transport.pause_writing()
    assert not raw.is_reading
    transport.resume_writing()
    assert raw.is_reading


def test_a_handshake_counts_as_a_connection() -> None:
    fake = start(max_connections=2)
    assert fake.tls is not None
    pairs = [begin(fake) for _ in range(2)]
    transport, raw = connect(fake)
    assert [503] == statuses(raw.sent)
    assert "too-many-connections" == read_responses(raw.sent)[0].reason
    for _ in range(2):  # a closed connection makes way for another
        transport.connection_lost(None)
        pairs.pop()[0].connection_lost(None)
        transport, raw = connect(fake)
        transport.data_received(raw.client.seal(http()))
        fake.disk.settle()
    assert [200] == statuses(raw.sent)
    assert (0, 1, 2) == (
        fake.connections.handshakes,
        len(fake.connections.open),
        fake.tls.failures,
    )


def test_far_over_the_limit_connections_are_closed_before_the_handshake() -> None:
    fake = FakeCollector(has_tls=True)
    assert fake.tls is not None
    allowed = 20_000 + MAX_OVER_LIMIT
    fake.connections.handshakes = allowed
    _, raw = begin(fake)
    assert (True, allowed) == (raw.is_aborted, fake.connections.handshakes)


@pytest.mark.parametrize("part_bytes", [0, 1, 100])
def test_a_handshake_must_be_complete_after_ten_seconds(part_bytes: int) -> None:
    fake = start()
    assert fake.tls is not None
    transport, raw = begin(fake)
    if part_bytes:
        transport.data_received(TlsPeer().shake_hands()[:part_bytes])
    fake.loop.advance(10.0)
    fake.tls.sweep()
    assert not raw.is_aborted
    _, later = begin(fake)
    fake.loop.advance(0.1)
    fake.tls.sweep()
    assert (True, False) == (raw.is_aborted, later.is_aborted)
    transport.connection_lost(None)
    assert (1, 1) == (fake.connections.handshakes, fake.tls.failures)


@pytest.mark.parametrize(
    "data", [http(), b"\x00" * 40, b"\x16\x03\x01\xff\xff" + b"x" * 70_000], ids=["http", "0", "x"]
)
def test_input_that_is_not_tls_closes_the_connection(data: bytes) -> None:
    fake = start()
    assert fake.tls is not None
    transport, raw = begin(fake)
    transport.data_received(data)
    assert (True, False) == (raw.is_closed, raw.is_aborted)
    assert raw.sent[:2] in {b"", b"\x15\x03"}  # an alert with the reason
    assert (0, 1) == (fake.connections.handshakes, fake.tls.failures)
    transport.data_received(http())
    transport.connection_lost(None)
    assert 1 == fake.tls.failures


def test_a_damaged_record_closes_the_connection_and_keeps_its_events() -> None:
    fake = start()
    transport, raw = connect(fake)
    records = raw.client.seal(http()) + b"\x17\x03\x03\x00\x20" + b"x" * 32
    transport.data_received(records)
    assert raw.is_closed
    transport.connection_lost(None)
    fake.disk.settle()
    assert 1 == len(events(fake))
    assert set() == fake.connections.open


def test_without_a_certificate_connections_are_closed() -> None:
    fake = start()
    assert fake.tls is not None
    fake.tls.context = None
    _, raw = begin(fake)
    assert (True, 0) == (raw.is_aborted, fake.connections.handshakes)


def test_a_new_certificate_applies_to_new_connections(tmp_path: Path) -> None:
    fake = start()
    assert fake.tls is not None
    transport, raw = connect(fake)
    files = issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    fake.tls.context = context
    _, of_new = connect(fake)
    serials = [
        each.client.tls.getpeercert()["serialNumber"]  # type: ignore[index]
        for each in (raw, of_new)
    ]
    assert serials[0] != serials[1]
    transport.data_received(raw.client.seal(http(TRACK)))
    fake.disk.settle()
    assert [200] == statuses(raw.sent)


def test_a_drain_completes_a_handshake_and_responds_to_its_request() -> None:
    fake = start()
    fake.connections.drain()
    transport, raw = connect(fake)
    transport.data_received(raw.client.seal(http() * 2))
    fake.disk.settle()
    (response,) = read_responses(raw.sent)
    assert (200, True, True) == (response.status, response.closes, raw.has_eof)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_rejected(version: ssl.TLSVersion) -> None:
    context = client_context(minimum_version=version, maximum_version=version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    fake = start()
    transport, raw = begin(fake)
    transport.data_received(TlsPeer(context).shake_hands())
    assert raw.is_closed
    assert b"\x02\x46" == raw.sent[-2:]  # fatal: protocol_version


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"], []])
def test_http_1_1_is_negotiated(offered: list[str]) -> None:
    context = client_context()
    if offered:
        context.set_alpn_protocols(offered)
    fake = start()
    assert fake.tls is not None
    raw = TlsFakeTransport()
    raw.client = TlsPeer(context)
    raw.attach(fake.tls.connect())
    assert ("http/1.1" if offered else None) == raw.client.tls.selected_alpn_protocol()


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_raise_nothing_and_leave_nothing(seed: int) -> None:
    """Records are changed, truncated, repeated and reordered, in the handshake and after it."""
    rng = random.Random(seed)
    fake = start()
    if seed % 2:
        transport, raw = connect(fake)
        records = [raw.client.seal(http() * rng.randrange(1, 4)) for _ in range(4)]
    else:
        transport, _ = begin(fake)
        records = [TlsPeer().shake_hands(), http()]
    data = bytearray(b"".join(rng.choices(records, k=4)))
    for _ in range(rng.randrange(0, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    while data:
        count = rng.randrange(1, len(data) + 1)
        transport.data_received(bytes(data[:count]))
        del data[:count]
        fake.disk.settle()
    assert not transport.eof_received()
    transport.connection_lost(None)
    assert (set(), 0, 0) == (
        fake.connections.open,
        fake.connections.handshakes,
        fake.connections.held_bytes,
    )
