"""The limits of targets, headers and heads, and of the number of connections."""

from __future__ import annotations

import pytest

from tests.collect.wire import (
    GIF,
    PAGE,
    TRACK,
    ask,
    feed,
    http,
    is_over,
    read_responses,
    statuses,
)
from tests.fakes import FakeCollector

LIMIT = 32_768
PIECES = [1, 7, 1000, 16_384, 10**9]
HOST_LINE_BYTES = len(b"Host: pixel.example\r\n")


def padded(target: bytes, size: int) -> bytes:
    """Return a target of `size` bytes; the padding is ignored, so that the event stays small."""
    start = target + b"&_="
    return start + b"x" * (size - len(start))


def header_lines(total: int) -> list[bytes]:
    """Return header lines that have `total` bytes with line ends, together with Host."""
    lines = [b"X-%02d: %b" % (number, b"y" * 1000) for number in range(100)]
    taken = HOST_LINE_BYTES
    chosen: list[bytes] = []
    while taken + len(lines[0]) + 2 <= total - 100:
        chosen.append(lines.pop(0))
        taken += len(chosen[-1]) + 2
    chosen.append(b"Z: " + b"z" * (total - taken - 5))
    assert total == taken + len(chosen[-1]) + 2
    return chosen


def send(request: bytes, piece_bytes: int) -> tuple[FakeCollector, bytes, bool]:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, request, piece_bytes)
    fake.disk.settle()
    return fake, transport.sent, is_over(transport)


@pytest.mark.parametrize("piece_bytes", PIECES)
@pytest.mark.parametrize("prefix", [b"", b"http://pixel.example"])
def test_a_target_of_32768_bytes_is_accepted(piece_bytes: int, prefix: bytes) -> None:
    request = http(padded(prefix + TRACK, LIMIT))
    fake, sent, is_closed = send(request, piece_bytes)
    assert ([200], False) == (statuses(sent), is_closed)
    assert 1 == len(fake.disk.events())


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_a_target_of_32769_bytes_gets_414(piece_bytes: int) -> None:
    fake, sent, is_closed = send(http(padded(TRACK, LIMIT + 1)), piece_bytes)
    (response,) = read_responses(sent)
    assert (414, "target-too-long", GIF) == (response.status, response.reason, response.body)
    assert (True, True) == (response.closes, is_closed)
    assert [] == fake.disk.events()


@pytest.mark.parametrize("piece_bytes", [1000, 10**9])
def test_a_target_of_200000_bytes_gets_414(piece_bytes: int) -> None:
    _, sent, is_closed = send(http(padded(PAGE, 200_000)), piece_bytes)
    assert ([414], True) == (statuses(sent), is_closed)


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_100_headers_are_accepted(piece_bytes: int) -> None:
    request = http(headers=[b"X-%d: y" % number for number in range(99)])
    assert [200] == statuses(send(request, piece_bytes)[1])


@pytest.mark.parametrize("piece_bytes", PIECES)
@pytest.mark.parametrize("value", [b": y", b":"], ids=["with-value", "empty"])
def test_101_headers_get_431(piece_bytes: int, value: bytes) -> None:
    request = http(headers=[b"X-%d%b" % (number, value) for number in range(100)])
    fake, sent, is_closed = send(request, piece_bytes)
    (response,) = read_responses(sent)
    assert (431, "too-many-headers", GIF) == (response.status, response.reason, response.body)
    assert (True, True) == (response.closes, is_closed)
    assert [] == fake.disk.events()


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_headers_of_32768_bytes_are_taken(piece_bytes: int) -> None:
    request = http(headers=header_lines(LIMIT))
    assert [200] == statuses(send(request, piece_bytes)[1])


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_headers_of_32769_bytes_get_431(piece_bytes: int) -> None:
    fake, sent, is_closed = send(http(headers=header_lines(LIMIT + 1)), piece_bytes)
    (response,) = read_responses(sent)
    assert (431, "headers-too-large", GIF) == (response.status, response.reason, response.body)
    assert (True, True) == (response.closes, is_closed)
    assert [] == fake.disk.events()


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_the_largest_target_and_the_largest_headers_are_accepted_together(piece_bytes: int) -> None:
    request = http(padded(TRACK, LIMIT), headers=header_lines(LIMIT))
    _, sent, _ = send(request * 2, piece_bytes)
    assert [200, 200] == statuses(sent)


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_white_space_around_a_value_is_limited_too(piece_bytes: int) -> None:
    """The parser does not report it, so only the size of the whole head limits it."""
    request = http(headers=[b"X: " + b" " * 100_000 + b"y"])
    assert [431] == statuses(send(request, piece_bytes)[1])


ENDLESS = {
    "method": b"G",
    "target": b"GET /" + b"x",
    "version": b"GET / HTTP/1.1" + b"1",
    "header name": b"GET / HTTP/1.1\r\nX",
    "header value": b"GET / HTTP/1.1\r\nX: y",
    "white space before a value": b"GET / HTTP/1.1\r\nX:  ",
    "headers": b"GET / HTTP/1.1\r\nX: y\r\n",
    "headers without a value": b"GET / HTTP/1.1\r\nX:\r\n",
}
REPEATED = {"headers": b"X: y\r\n", "headers without a value": b"X:\r\n"}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("piece_bytes", [50, 1000, 65_536])
def test_an_endless_head_is_rejected(name: str, piece_bytes: int) -> None:
    start = ENDLESS[name]
    more = REPEATED.get(name, start[-1:])
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(start)
    sent_bytes = 0
    while not is_over(transport):
        connection.data_received((more * 65_536)[:piece_bytes])
        sent_bytes += piece_bytes
        assert sent_bytes < 200_000, "no limit of reading"
    (response,) = read_responses(transport.sent)
    assert response.status in {400, 405, 414, 431}
    assert (True, GIF) == (response.closes, response.body)


@pytest.mark.parametrize("piece_bytes", [2, 1000, 65_536])
@pytest.mark.parametrize("line", [b"\r\n", b"\n", b"\r"])
def test_endless_blank_lines_before_a_request_are_rejected(piece_bytes: int, line: bytes) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    sent_bytes = 0
    while not is_over(transport):
        connection.data_received((line * 65_536)[:piece_bytes])
        sent_bytes += piece_bytes
        assert sent_bytes < 200_000, "no limit of reading"
    assert statuses(transport.sent)[0] in {400, 431}


def test_a_few_blank_lines_before_a_request_are_ignored() -> None:
    assert 200 == ask(FakeCollector(), b"\r\n\r\n" + http()).status


@pytest.mark.parametrize("piece_bytes", [50, 65_536])
def test_the_limits_apply_to_every_request_of_a_connection(piece_bytes: int) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, http(b"/", headers=header_lines(20_000)) * 5, piece_bytes)
    assert [404] * 5 == statuses(transport.take())
    feed(connection, http(headers=header_lines(LIMIT + 1)), piece_bytes)
    assert [431] == statuses(transport.sent)


def test_a_connection_over_the_limit_gets_503() -> None:
    fake = FakeCollector(connections={"max_connections": 2})
    (first, of_first), (_, of_second) = fake.connect(), fake.connect()
    third, of_third = fake.connect()
    third.data_received(http())
    (response,) = read_responses(of_third.sent)
    assert (503, "too-many-connections", GIF) == (response.status, response.reason, response.body)
    assert ("1", True, True) == (
        response.headers["Retry-After"],
        response.closes,
        of_third.has_eof,
    )
    first.data_received(http())
    fake.disk.settle()
    assert ([200], b"") == (statuses(of_first.sent), of_second.sent)
    third.connection_lost(None)
    first.connection_lost(None)
    fourth, of_fourth = fake.connect()
    fourth.data_received(http())
    fake.disk.settle()
    assert [200] == statuses(of_fourth.sent)
