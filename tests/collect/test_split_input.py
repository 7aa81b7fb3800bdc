"""Responses do not depend on how TCP splits the input: compare whole with split input."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from typing import Any, NamedTuple

import orjson
import pytest

from tests.collect.test_mutations import MUTATIONS
from tests.collect.wire import PAGE, TRACK, http, is_over, statuses
from tests.fakes import FakeCollector

CHUNKED = [b"Transfer-Encoding: chunked"]
LIMIT = 32_768
HEAD_LIMIT = 66_560
FRAMING_LIMIT = 458_752  # of a chunked body
_DATE = re.compile(rb"\r\nDate: [^\r]*")

# Requests whose response once depended on a split, or that meet several rules. Each is split at
# every byte.
SHORT = {
    "plain": http(),
    "HEAD with a bad byte": http(TRACK + b"\x01", b"HEAD"),
    "HEAD with a raw byte": http(TRACK + b"\x80", b"HEAD"),
    "HEAD without Host": b"HEAD " + TRACK + b" HTTP/1.1\r\n\r\n",
    "HEAD on another path": http(b"/x", b"HEAD", [b"A : b"]),
    "longer than a known method": http(method=b"GETX"),
    "shorter than a known method": http(method=b"GE"),
    "PRI": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "PUT": http(method=b"PUT"),
    "several spaces": b"GET  " + TRACK + b"  HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET " + TRACK + b"\r\n\r\n",
    "HTTP/1.0": http(version=b"HTTP/1.0"),
    "HTTP/1.0 in chunks, kept": http(
        TRACK, b"POST", [*CHUNKED, b"Connection: keep-alive"], b"0\r\n\r\n", b"HTTP/1.0"
    ),
    "blank lines": b"\r\n\n\r\r\n" + http(),
    "bare LF": http().replace(b"\r\n", b"\n"),
    "bare CR": http().replace(b"\r\n", b"\r"),
    "LF before the empty line": http().replace(b"\r\n\r\n", b"\n\r\n"),
    "CR before the empty line": http().replace(b"\r\n\r\n", b"\r\r\n\r\n"),
    "white space before a colon": http(headers=[b"Origin : a"]),
    "folded": http(headers=[b"Origin: a\r\n b"]),
    "two Hosts": http(headers=[b"Host: a"]),
    "the same Content-Length twice": http(
        TRACK, b"POST", [b"Content-Length: 3", b"Content-Length: 3"], b"abc"
    ),
    "Content-Length with zeros": http(TRACK, b"POST", [b"Content-Length: 0000000003"], b"abc"),
    "both framings": http(TRACK, b"POST", [b"Content-Length: 3", *CHUNKED], b"0\r\n\r\n"),
    "chunk extensions": http(TRACK, b"POST", CHUNKED, b"3;a=b;c\r\na\nb\r\n0;d\r\nT: u\r\n\r\n"),
    "a line end within a chunk": http(TRACK, b"POST", CHUNKED, b"4\r\n\r\n\r\n\r\n0\r\n\r\n"),
    "bad chunk": http(TRACK, b"POST", CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"),
    "Expect with a body": http(
        TRACK, b"POST", [b"Expect: 100-continue", b"Content-Length: 3"], b"abc"
    ),
    "Expect with a rejected body": http(
        b"/", b"POST", [b"Expect: 100-continue", *CHUNKED], b"x\r\n"
    ),
    "kept": http(headers=[b"Connection: keep-alive"]),
    "close, and more": http(headers=[b"Connection: close"]),
    "upgrade": http(headers=[b"Connection: Upgrade", b"Upgrade: h2c"]),
    "absolute": http(b"http://pixel.example" + PAGE, headers=[b"X-E:"]),
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes behind a body": http(TRACK, b"POST", [b"Content-Length: 1"], b"abc\r\n"),
}


class Outcome(NamedTuple):
    """Hold everything that a peer and the spool see of one connection."""

    sent: bytes
    events: list[dict[str, Any]]
    is_over: bool
    is_aborted: bool
    is_reading: bool


def outcome_of(pieces: list[bytes], *, always_200: bool = False, settles: bool = False) -> Outcome:
    """Send the pieces over one connection. With `settles`, commit after each piece."""
    fake = FakeCollector(trusted_proxies=["10.0.0.0/8"], always_200=always_200)
    connection, transport = fake.connect(("10.0.0.1", 40000))
    for piece in pieces:
        connection.data_received(piece)
        if settles:
            fake.disk.settle()
    fake.disk.settle()
    events = [orjson.loads(event) for _, event in fake.disk.events()]
    for event in events:
        del event["messageId"]
    return Outcome(
        _DATE.sub(b"", transport.sent),
        events,
        is_over(transport),
        transport.is_aborted,
        transport.is_reading,
    )


def split_at(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("behind", [b"", http()], ids=["alone", "and-another"])
def test_a_split_at_any_byte_changes_nothing(name: str, behind: bytes) -> None:
    data = SHORT[name] + behind
    whole = outcome_of([data])
    for place in range(1, len(data)):
        assert whole == outcome_of(split_at(data, [place])), place
    assert whole == outcome_of([data[i : i + 1] for i in range(len(data))])


@pytest.mark.parametrize("headers", [[], [b"Connection: keep-alive"]])
def test_http_1_0_with_a_transfer_coding_ends_the_connection(headers: list[bytes]) -> None:
    """See RFC 9112 section 6.1: its framing may be faulty."""
    body = b"3\r\nabc\r\n0\r\n\r\n"
    request = http(TRACK, b"POST", CHUNKED + headers, body, version=b"HTTP/1.0")
    seen = outcome_of([request + http()])
    assert ([200], 1, True) == (statuses(seen.sent), len(seen.events), seen.is_over)


@pytest.mark.parametrize("bad", [b"\x01", b"\x7f"])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_only_head_gets_a_rejection_without_a_body(method: bytes, bad: bytes) -> None:
    sent = outcome_of([http(TRACK + bad, method)]).sent
    assert ([400], method == b"HEAD") == (statuses(sent, method), sent.endswith(b"\r\n\r\n"))


@pytest.mark.parametrize("cut_bytes", [1, 10, 60])
def test_a_timeout_of_head_has_no_body(cut_bytes: int) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http(method=b"HEAD")[:-cut_bytes])
    fake.clock.advance(11.0)
    fake.connections.sweep()
    assert [408] == statuses(transport.sent, b"HEAD")


def padded(size: int, tail: bytes = b"") -> bytes:
    start = TRACK + b"&_="
    return start + b"x" * (size - len(start) - len(tail)) + tail


LONG = {
    "a bad byte behind the limit of the target": (http(padded(LIMIT + 300, b"\x80")), 414),
    "a control byte behind the limit of the target": (http(padded(LIMIT + 300, b"\x01")), 414),
    "a bad byte, and a target over the limit": (http(b"/\x01" + padded(LIMIT)), 414),
    "a target at the limit": (http(padded(LIMIT)), 200),
    "a target over the limit": (http(padded(LIMIT + 1)), 414),
    "a head at the limit": (
        http(headers=[b"X:" + b" " * (HEAD_LIMIT - len(http()) - 5) + b"y"]),
        200,
    ),
    "a head over the limit": (
        http(headers=[b"X:" + b" " * (HEAD_LIMIT - len(http()) - 4) + b"y"]),
        431,
    ),
    "a malformed line, and a head over the limit": (
        http(headers=[b"A : b", b"X:" + b" " * HEAD_LIMIT + b"y"]),
        431,
    ),
    "too many headers, and a malformed line": (http(headers=[b"A: b"] * 101 + [b"A : b"]), 431),
    "a malformed line, and too many headers": (http(headers=[b"A : b"] + [b"A: b"] * 101), 400),
    "headers too large": (http(headers=[b"A: " + b"b" * 400] * 90), 431),
    "blank lines at the limit": (b"\r\n" * (HEAD_LIMIT // 2) + http(), 200),
    "blank lines over the limit": (b"\r\n" * (HEAD_LIMIT // 2 + 1) + http(), 431),
    "a body at the limit": (
        http(TRACK, b"POST", [b"Content-Length: 65536"], b"\n" * 65_536),
        200,
    ),
    "a body over the limit": (
        http(TRACK, b"POST", [b"Content-Length: 65537"], b"x" * 65_537),
        413,
    ),
    "a chunk over the limit, and a bad one": (
        http(TRACK, b"POST", CHUNKED, b"10001\r\n" + b"x" * 65_537 + b"bad\r\n"),
        413,
    ),
    "framing at the limit": (
        http(TRACK, b"POST", CHUNKED, b"0\r\nT:" + b"t" * (FRAMING_LIMIT - 9) + b"\r\n\r\n"),
        200,
    ),
    "a trailer over the limit": (
        http(TRACK, b"POST", CHUNKED, b"0\r\nT:" + b"t" * (FRAMING_LIMIT - 8) + b"\r\n\r\n"),
        413,
    ),
    "a trailer over the limit, and a bad byte": (
        http(TRACK, b"POST", CHUNKED, b"0\r\nT:" + b"t" * FRAMING_LIMIT + b"\x00\r\n\r\n"),
        413,
    ),
    "framing over the limit": (
        http(TRACK, b"POST", CHUNKED, b"0\r\n" + b"T: uvw\r\n" * 70_000 + b"\r\n"),
        413,
    ),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("always_200", [False, True])
def test_a_limit_applies_at_the_same_byte_however_the_input_is_divided(
    name: str, always_200: bool
) -> None:
    data, status = LONG[name]
    data += http(b"/behind")
    whole = outcome_of([data], always_200=always_200)
    assert status == statuses(whole.sent)[0] or always_200
    choose = random.Random(name)
    for piece_bytes in (999, 16_384, 32_768, 65_536):
        pieces = [data[i : i + piece_bytes] for i in range(0, len(data), piece_bytes)]
        assert whole == outcome_of(pieces, always_200=always_200), piece_bytes
    for _ in range(5):
        places = [choose.randrange(len(data)) for _ in range(choose.randrange(1, 6))]
        assert whole == outcome_of(split_at(data, places), always_200=always_200), places


@pytest.mark.parametrize("group", range(30))
def test_random_requests_get_the_same_responses_whole_and_split(group: int) -> None:
    for seed in range(100 * group, 100 * group + 100):
        choose = random.Random(seed)
        requests = choose.choices(list(SHORT.values()), k=choose.choice([1, 1, 2, 3, 4]))
        data = bytearray(b"".join(requests))
        for _ in range(choose.choice([0, 1, 1, 2, 5])):
            if data:
                choose.choice(MUTATIONS)(choose, data)
        count = choose.choice([1, 2, 5, 50])
        places = [choose.randrange(len(data) + 1) for _ in range(count)]
        whole = outcome_of([bytes(data)])
        for settles in (False, True):
            pieces = split_at(bytes(data), places)
            assert whole == outcome_of(pieces, settles=settles), f"seed {seed}"
