"""A chunked body ends, or is malformed, where the parser says so."""

from __future__ import annotations

import random

import pytest
from httptools import HttpParserError, HttpRequestParser

from tests.collect.wire import TRACK, events, http, statuses
from tests.fakes import FakeCollector

HEAD = http(TRACK, b"POST", [b"Transfer-Encoding: chunked"])
BEHIND = http(b"/behind")
BODIES = [
    b"0\r\n\r\n",
    b"000\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"A\r\n0123456789\r\n0a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"1;a=b;c\r\nx\r\n0;d\r\n\r\n",
    b"2\r\n\r\n\r\n0\r\nT: u\r\nV:\r\n\r\n",
    b"1\r\nx\r\n0\r\nHost: y\t z\r\n\r\n",
]
PIECES = [b"\r\n", b"\r", b"\n", b"0", b"1", b"f", b"F", b"x", b" ", b":", b"\x00", b"0\r\n", b"-"]


def parsed(data: bytes) -> int:
    """Return the end of the body by the parser: -1 if malformed, 0 if incomplete."""
    done: list[bool] = []

    class Protocol:
        def on_message_complete(self) -> None:
            done.append(True)

    parser = HttpRequestParser(Protocol())
    parser.feed_data(HEAD)
    for place in range(len(data)):
        try:
            parser.feed_data(data[place : place + 1])
        except HttpParserError:
            return -1
        if done:
            return place + 1
    return 0


def collected(data: bytes) -> int:
    """Return the end of the body by a connection; 0 also if the body is too large."""
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(HEAD)
    for place in range(len(data)):
        connection.data_received(data[place : place + 1])
        if fake.connections.requests:
            fake.disk.settle()
            return {200: place + 1, 400: -1, 413: 0}[statuses(transport.sent)[0]]
    return 0


@pytest.mark.parametrize("body", BODIES)
def test_a_request_after_a_chunked_body_is_found(body: bytes) -> None:
    fake = FakeCollector()
    sent = fake.exchange(HEAD + body + BEHIND + HEAD + body)
    assert ([200, 404, 200], 2) == (statuses(sent), len(events(fake)))
    assert parsed(body) == collected(body) == len(body)


@pytest.mark.parametrize("group", range(10))
def test_a_damaged_chunked_body_ends_where_the_parser_ends_it(group: int) -> None:
    ends = set()
    for seed in range(200 * group, 200 * group + 200):
        choose = random.Random(seed)
        # Without extensions, because the parser rejects more of them.
        data = bytearray(choose.choice([body for body in BODIES if b";" not in body]))
        for _ in range(choose.choice([1, 1, 2, 3])):
            place = choose.randrange(len(data) + 1)
            data[place : place + choose.choice([0, 1, 1, 2])] = choose.choice(PIECES)
        expected = parsed(bytes(data))
        ends.add(min(expected, 1))
        assert expected == collected(bytes(data)), (seed, bytes(data))
    assert {-1, 0, 1} == ends


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\x00", b"\x7f"])
@pytest.mark.parametrize("place", [b"1;a%b\r\nx\r\n0\r\n\r\n", b"0\r\nT: u%bv\r\n\r\n"])
def test_control_characters_in_extensions_and_trailers_are_rejected(
    place: bytes, byte: bytes
) -> None:
    assert [400] == statuses(FakeCollector().exchange(HEAD + place % byte + BEHIND))


@pytest.mark.parametrize("size", [b"1" * 17, b"f" * 16, b"8000000000000000", b"f" * 300])
def test_a_size_of_more_than_64_bits_is_malformed_or_too_large(size: bytes) -> None:
    sent = FakeCollector().exchange(HEAD + size + b"\r\nx")
    assert statuses(sent)[0] in {400, 413}
