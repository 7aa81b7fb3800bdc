"""Requests split at any byte get the same responses and store the same events."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest

from tests.collect.wire import PAGE, TRACK, feed, http, is_over, read_responses
from tests.fakes import FakeCollector

PROXY = ("10.0.0.1", 40000)


class Case(NamedTuple):
    request: bytes
    status: int
    stores: bool = False
    closes: bool = False


def pixel(name: bytes, **options: object) -> bytes:
    """Return a track request whose event has no generated values."""
    target = b"%b&messageId=%b&properties.n=1&properties.b.-1=caf%%C3%%A9" % (TRACK, name)
    return http(target, **options)  # type: ignore[arg-type]


CASES = {
    "get": Case(pixel(b"m-get"), 200, stores=True),
    "page": Case(http(PAGE + b"&messageId=m-page", headers=[b"User-Agent: B"]), 200, stores=True),
    "cors": Case(pixel(b"m-cors", headers=[b"Origin: https://a.example"]), 200, stores=True),
    "head": Case(pixel(b"m-head", method=b"HEAD"), 200),
    "post": Case(
        pixel(b"m-post", method=b"POST", headers=[b"Content-Length: 5"], body=b"GET /"),
        200,
        stores=True,
    ),
    "chunked": Case(
        pixel(
            b"m-chunked",
            method=b"POST",
            headers=[b"Transfer-Encoding: chunked"],
            body=b"3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nUser-Agent: t\r\nT:\r\n\r\n",
        ),
        200,
        stores=True,
    ),
    "options": Case(http(TRACK, b"OPTIONS", [b"Origin: https://a.example"]), 204),
    "put": Case(http(TRACK, b"PUT", [b"Content-Length: 2"], b"{}"), 405),
    "nowhere": Case(http(b"/?" + b"x" * 40), 404),
    "robots": Case(http(b"/robots.txt"), 200),
    "absolute": Case(
        http(b"http://pixel.example" + PAGE + b"&messageId=m-absolute"), 200, stores=True
    ),
    "no key": Case(http(b"/pixel/v1/page"), 400),
    "unknown": Case(http(PAGE.replace(b"demo", b"who")), 401),
    "blank line": Case(b"\r\n" + pixel(b"m-blank"), 200, stores=True),
    "proxied": Case(
        pixel(b"m-proxied", headers=[b"X-Forwarded-For: 203.0.113.7", b"X-Empty:", b"X-Real-IP:"]),
        200,
        stores=True,
    ),
    "kept": Case(
        pixel(b"m-kept", headers=[b"connection: Keep-Alive"]),
        200,
        stores=True,
    ),
    "1.0 kept": Case(
        pixel(b"m-1-0-kept", version=b"HTTP/1.0", headers=[b"Connection: keep-alive"]),
        200,
        stores=True,
    ),
    "1.0": Case(pixel(b"m-1-0", version=b"HTTP/1.0"), 200, stores=True, closes=True),
    "close": Case(pixel(b"m-close", headers=[b"Connection: close"]), 200, stores=True, closes=True),
    "upgrade": Case(
        pixel(b"m-upgrade", headers=[b"Connection: Upgrade", b"Upgrade: h2c"]),
        200,
        stores=True,
        closes=True,
    ),
    "malformed": Case(b"GET " + TRACK + b" HTTP/1.1\r\nBad Header\r\n\r\n", 400, closes=True),
}


def exchange(fake: FakeCollector, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return the responses of one connection, and whether it has ended."""
    connection, transport = fake.connect(PROXY)
    for piece in pieces:
        connection.data_received(piece)
    fake.disk.settle()
    connection.connection_lost(None)
    return transport.sent, is_over(transport)


def make_collector() -> FakeCollector:
    fake = FakeCollector(trusted_proxies=["10.0.0.0/8"])
    fake.collector.tick(1_700_000_000)
    return fake


def whole(case: Case) -> tuple[bytes, list[bytes]]:
    fake = make_collector()
    sent, _ = exchange(fake, [case.request])
    return sent, [event for _, event in fake.disk.events()]


@pytest.mark.parametrize("name", CASES)
def test_a_whole_request_gets_one_response(name: str) -> None:
    case = CASES[name]
    fake = make_collector()
    sent, is_closed = exchange(fake, [case.request])
    (response,) = read_responses(sent, case.request.split(b" ")[0])
    assert (case.status, case.closes, case.closes) == (response.status, response.closes, is_closed)
    assert case.stores == (len(fake.disk.events()) == 1)
    said = response.headers.get("Connection")
    kept = "keep-alive" if name in {"kept", "1.0 kept"} else None
    assert ("close" if case.closes else kept) == said


@pytest.mark.parametrize("name", CASES)
def test_input_byte_by_byte_makes_no_difference(name: str) -> None:
    case = CASES[name]
    sent, events = whole(case)
    fake = make_collector()
    pieces = [case.request[i : i + 1] for i in range(len(case.request))]
    assert (sent, case.closes) == exchange(fake, pieces)
    assert events == [event for _, event in fake.disk.events()]


@pytest.mark.parametrize("name", CASES)
def test_a_split_at_any_byte_makes_no_difference(name: str) -> None:
    case = CASES[name]
    sent, events = whole(case)
    fake = make_collector()
    for place in range(len(case.request) + 1):
        cut = [case.request[:place], case.request[place:]]
        assert (sent, case.closes) == exchange(fake, cut), f"cut at {place}"
    cuts = len(case.request) + 1
    assert events * cuts == [event for _, event in fake.disk.events()]


@pytest.mark.parametrize("piece_bytes", [2, 3, 16, 1000])
def test_input_in_pieces_of_any_size_makes_no_difference(piece_bytes: int) -> None:
    fake = make_collector()
    for name, case in CASES.items():
        connection, transport = fake.connect(PROXY)
        feed(connection, case.request, piece_bytes)
        fake.disk.settle()
        assert whole(case)[0] == transport.sent, name


@pytest.mark.parametrize("first", CASES)
def test_two_requests_in_one_read_get_the_same_responses_as_one_by_one(first: str) -> None:
    sent_of_first, events_of_first = whole(CASES[first])
    for second, case in CASES.items():
        sent, events = whole(case)
        if CASES[first].closes:
            sent, events = b"", []  # input after the last request is ignored
        fake = make_collector()
        data = CASES[first].request + case.request
        expected = (sent_of_first + sent, CASES[first].closes or case.closes)
        assert expected == exchange(fake, [data]), f"{first}, then {second}"
        assert events_of_first + events == [event for _, event in fake.disk.events()]


@pytest.mark.parametrize("first", CASES)
def test_two_requests_byte_by_byte_get_the_same_responses_as_one_by_one(first: str) -> None:
    sent_of_first, events_of_first = whole(CASES[first])
    for second, case in CASES.items():
        sent, events = whole(case)
        if CASES[first].closes:
            sent, events = b"", []
        fake = make_collector()
        data = CASES[first].request + case.request
        expected = (sent_of_first + sent, CASES[first].closes or case.closes)
        pieces = [data[i : i + 1] for i in range(len(data))]
        assert expected == exchange(fake, pieces), f"{first}, then {second}"
        assert events_of_first + events == [event for _, event in fake.disk.events()]


def test_all_requests_that_keep_the_connection_can_share_it() -> None:
    kept = [case for case in CASES.values() if not case.closes]
    data = b"".join(case.request for case in kept)
    expected = b"".join(whole(case)[0] for case in kept)
    fake = make_collector()
    for place in itertools.chain(range(0, len(data), 13), [len(data)]):
        assert (expected, False) == exchange(fake, [data[:place], data[place:]]), f"cut at {place}"


def test_responses_between_the_pieces_make_no_difference() -> None:
    """A commit may complete while the next request is incomplete."""
    kept = [case for case in CASES.values() if not case.closes]
    data = b"".join(case.request for case in kept)
    expected = b"".join(whole(case)[0] for case in kept)
    fake = make_collector()
    connection, transport = fake.connect(PROXY)
    for start in range(0, len(data), 11):
        connection.data_received(data[start : start + 11])
        fake.disk.settle()
    assert expected == transport.sent
