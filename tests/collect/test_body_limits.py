"""The limits of bodies, chunks, chunk extensions and trailers."""

from __future__ import annotations

import pytest

from tests.collect.wire import GIF, TRACK, feed, http, is_over, read_responses, statuses
from tests.fakes import FakeCollector

LIMIT = 65_536
CHUNKED = [b"Transfer-Encoding: chunked"]


def chunked(body: bytes, chunk_bytes: int) -> bytes:
    parts = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def post(size: int, chunk_bytes: int = 0) -> bytes:
    body = b"x" * size
    if chunk_bytes:
        return http(TRACK, b"POST", CHUNKED, chunked(body, chunk_bytes))
    return http(TRACK, b"POST", [b"Content-Length: %d" % size], body)


@pytest.mark.parametrize("piece_bytes", [100, 16_384, 10**9])
@pytest.mark.parametrize("chunk_bytes", [0, 10, 5000, LIMIT])
def test_a_body_of_64_kib_is_accepted(chunk_bytes: int, piece_bytes: int) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, post(LIMIT, chunk_bytes) + http(), piece_bytes)
    fake.disk.settle()
    assert [200, 200] == statuses(transport.sent)
    assert 2 == len(fake.disk.events())


@pytest.mark.parametrize("piece_bytes", [100, 16_384, 10**9])
@pytest.mark.parametrize("chunk_bytes", [0, 10, 5000, LIMIT + 1])
def test_a_body_over_64_kib_gets_413_and_is_not_stored(chunk_bytes: int, piece_bytes: int) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, post(LIMIT + 1, chunk_bytes) + http(), piece_bytes)
    fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (413, "body-too-large", GIF) == (response.status, response.reason, response.body)
    assert (True, True) == (response.closes, transport.has_eof)
    assert [] == fake.disk.events()


def test_an_endless_body_is_rejected() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http(TRACK, b"POST", [b"Content-Length: 99999999999"]))
    for _ in range(5):
        connection.data_received(b"x" * 16_384)
    assert [413] == statuses(transport.sent)


def test_the_body_of_a_request_without_an_event_is_limited_too() -> None:
    for target, method in ((b"/", b"POST"), (TRACK, b"PUT"), (TRACK, b"GET")):
        fake = FakeCollector()
        connection, transport = fake.connect()
        connection.data_received(
            http(target, method, [b"Content-Length: 70000"], b"x" * 70_000) + http()
        )
        assert [413] == statuses(transport.sent), method


def test_the_size_of_each_body_is_counted_separately() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, post(40_000) * 5, 9000)
    fake.disk.settle()
    assert [200] * 5 == statuses(transport.sent)


ENDLESS = {
    "trailer name": (b"0\r\nT", b"t"),
    "trailer value": (b"0\r\nT: ", b"t"),
    "trailers": (b"0\r\n", b"T: t\r\n"),
    "chunk extension": (b"1;x=", b"y"),
    "chunk extensions": (b"1", b";x=y"),
    "zeros of a chunk's size": (b"", b"0"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_the_framing_of_a_body_is_limited_too(name: str) -> None:
    """The parser copies the value of a trailer with each piece: without a limit, 13 MB of it block
    the process for seconds, and occupy memory until the connection closes."""
    start, more = ENDLESS[name]
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http(TRACK, b"POST", CHUNKED, start))
    piece = more * (16_384 // len(more))
    for _ in range(64):  # a megabyte
        connection.data_received(piece)
        if is_over(transport):
            break
    assert is_over(transport), "no limit of reading"
    (response,) = read_responses(transport.sent)
    assert response.status in {400, 413, 431}
    assert (True, GIF) == (response.closes, response.body)
    assert [] == fake.disk.events()


def test_a_few_trailers_are_ignored() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    trailers = b"Origin: https://evil.example\r\nUser-Agent: trailer\r\nExpect: 100-continue\r\n"
    connection.data_received(http(TRACK, b"POST", CHUNKED, b"0\r\n" + trailers + b"\r\n") + http())
    fake.disk.settle()
    first, second = read_responses(transport.sent)
    assert [200, 200] == [first.status, second.status]
    assert first.headers == second.headers
    assert all(b"userAgent" not in event for _, event in fake.disk.events())
