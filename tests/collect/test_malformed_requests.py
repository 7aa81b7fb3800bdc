"""Malformed and unusual requests get a response, or their connection closes cleanly."""

from __future__ import annotations

import pytest
import structlog.testing

from tests.collect.wire import (
    GIF,
    PAGE,
    PIXEL_HEADERS,
    TRACK,
    events,
    feed,
    http,
    is_over,
    read_responses,
    statuses,
)
from tests.fakes import FakeCollector

END = b"\r\nHost: pixel.example\r\n\r\n"

MALFORMED = {
    "NUL": b"\x00",
    "garbage": bytes(range(256)) * 10,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 500,
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "no method": b"(GET) " + TRACK + b" HTTP/1.1" + END,
    "white space first": b" GET " + TRACK + b" HTTP/1.1" + END,
    "no target": b"GET  HTTP/1.1" + END,
    "relative target": b"GET pixel/v1/track HTTP/1.1" + END,
    "space in the target": b"GET /pixel/v1/track?a b HTTP/1.1" + END,
    "NUL in the target": b"GET " + TRACK + b"\x00 HTTP/1.1" + END,
    "control byte in the target": b"GET " + TRACK + b"\x01 HTTP/1.1" + END,
    "tab in the target": b"GET\t" + TRACK + b" HTTP/1.1" + END,
    "NUL in a header name": http(headers=[b"X\x00Y: z"]),
    "NUL in a header value": http(headers=[b"X: y\x00z"]),
    "control byte in a header value": http(headers=[b"Origin: https://a\x1b[0m"]),
    "CR in a header value": http(headers=[b"Origin: https://a\rSet-Cookie: b=c"]),
    "LF in a header value": http(headers=[b"Origin: https://a\n\n"]),
    "folded header": http(headers=[b"Origin: https://a\r\n Set-Cookie: b=c"]),
    "folded first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "space before a colon": http(headers=[b"Origin : https://a"]),
    "header without a colon": http(headers=[b"Origin"]),
    "header without a name": http(headers=[b": value"]),
    "no Host": http().replace(b"Host", b"Hosts"),
    "two Hosts": http(headers=[b"HOST: pixel.example"]),
    "bare LF": http().replace(b"\r\n", b"\n"),
    "HTTP/0.9": b"GET " + TRACK + b"\r\n\r\n",
    "HTTP/0.9, LF": b"GET " + TRACK + b"\n" + END,
    "HTTP/0.9 in words": http(version=b"HTTP/0.9"),
    "HTTP/1.2": http(version=b"HTTP/1.2"),
    "HTTP/2.0": http(version=b"HTTP/2.0"),
    "HTTP/3.0": b"GET / HTTP/3.0" + END,
    "HTTP/1.10": http(version=b"HTTP/1.10"),
    "HTTP/01.1": http(version=b"HTTP/01.1"),
    "HTTP/1": http(version=b"HTTP/1"),
    "HTTPS/1.1": http(version=b"HTTPS/1.1"),
    "ICE": b"SOURCE /x ICE/1.0" + END,
    "RTSP": b"DESCRIBE /x RTSP/1.0" + END,
    "GET with ICE": http(version=b"ICE/1.0"),
    "two spaces before the target": b"GET  " + TRACK + b" HTTP/1.1" + END,
    "two spaces behind the target": b"GET " + TRACK + b"  HTTP/1.1" + END,
    "a space behind the version": http(version=b"HTTP/1.1 "),
    "a tab before the version": b"GET " + TRACK + b"\tHTTP/1.1" + END,
    "DEL in the target": http(TRACK + b"\x7f"),
    "CR behind the version": b"GET " + TRACK + b" HTTP/1.1\r" + END,
    "LF behind the version": b"GET " + TRACK + b" HTTP/1.1\nHost: x\r\n\r\n",
    "raw bytes first": http("é".encode()),
    "raw bytes in a method": b"G\xc3\x89T " + TRACK + b" HTTP/1.1" + END,
    "HTTP/11": b"GET / HTTP/11" + END,
    "http/1.1": b"GET / http/1.1" + END,
    "no version, more lines": b"GET /\r\nHost: x y\r\n: \r\n\r\n",
    "Content-Length: -1": http(TRACK, b"POST", [b"Content-Length: -1"]),
    "Content-Length: x": http(TRACK, b"POST", [b"Content-Length: x"]),
    "Content-Length: 1, 1": http(TRACK, b"POST", [b"Content-Length: 1, 1"], b"x"),
    "Content-Length: +1": http(TRACK, b"POST", [b"Content-Length: +1"], b"x"),
    "huge Content-Length": http(TRACK, b"POST", [b"Content-Length: " + b"9" * 30]),
    "two Content-Lengths": http(
        TRACK, b"POST", [b"Content-Length: 1", b"Content-Length: 100"], b"x"
    ),
    "the same Content-Length twice": http(
        TRACK, b"POST", [b"Content-Length: 1", b"Content-Length: 1"], b"x"
    ),
    "Content-Length, Transfer-Encoding": http(
        TRACK, b"POST", [b"Content-Length: 3", b"Transfer-Encoding: chunked"], b"0\r\n\r\n"
    ),
    "Transfer-Encoding, Content-Length": http(
        TRACK, b"POST", [b"Transfer-Encoding: chunked", b"Content-Length: 3"], b"0\r\n\r\n"
    ),
    "Transfer-Encoding: gzip": http(TRACK, b"POST", [b"Transfer-Encoding: gzip"], b"x"),
    "Transfer-Encoding: chunked, gzip": http(
        TRACK, b"POST", [b"Transfer-Encoding: chunked, gzip"], b"0\r\n\r\n"
    ),
    "chunk size g": http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"g\r\n\r\n"),
    "chunk size -1": http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"-1\r\n\r\n"),
    "huge chunk": http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"f" * 20 + b"\r\n"),
    "chunk longer than said": http(
        TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"1\r\nabc\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("piece_bytes", [1, 10**9])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_400_and_closes_the_connection(
    name: str, piece_bytes: int
) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    with structlog.testing.capture_logs() as logs:
        feed(connection, MALFORMED[name] + http(), piece_bytes)
        fake.disk.settle()
    (response,) = read_responses(transport.sent)
    assert (400, "malformed-request", GIF) == (response.status, response.reason, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert (True, True) == (response.closes, transport.has_eof)
    assert ([], []) == (events(fake), logs)
    assert {"malformed-request": 1} == fake.collector.sources.unknown.rejected


UNKNOWN_METHODS = {
    "unknown": b"BREW " + TRACK + b" HTTP/1.1" + END,
    "lower case": b"get " + TRACK + b" HTTP/1.1" + END,
    "mixed case": b"Get " + TRACK + b" HTTP/1.1" + END,
    "longer than one that is known": b"GETX " + TRACK + b" HTTP/1.1" + END,
    "shorter": b"G " + TRACK + b" HTTP/1.1" + END,
    "after a blank line": b"\r\nBREW " + TRACK + b" HTTP/1.1" + END,
    "proxy protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n" + http(),
    "smtp": b"EHLO there\r\n",
}


@pytest.mark.parametrize("piece_bytes", [1, 3, 10**9])
@pytest.mark.parametrize("name", UNKNOWN_METHODS)
def test_an_unknown_method_gets_405(name: str, piece_bytes: int) -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    feed(connection, UNKNOWN_METHODS[name], piece_bytes)
    (response,) = read_responses(transport.sent)
    assert (405, "method-not-allowed", GIF) == (response.status, response.reason, response.body)
    assert "GET, HEAD, POST, OPTIONS" == response.headers["Allow"]
    assert (True, True) == (response.closes, transport.has_eof)
    assert {"method-not-allowed": 1} == fake.collector.sources.unknown.rejected


@pytest.mark.parametrize("first", [http(), http(headers=[b"Connection: keep-alive"])])
def test_an_unknown_method_after_another_request_gets_405(first: bytes) -> None:
    sent = FakeCollector().exchange(first + UNKNOWN_METHODS["unknown"])
    assert [200, 405] == statuses(sent)


# The input of a connection, the statuses of the responses, and whether the connection stays open.
ODD = {
    "HTTP/1.0": (http(version=b"HTTP/1.0"), [200], False),
    "HTTP/1.0 kept": (
        http(version=b"HTTP/1.0", headers=[b"Connection: keep-alive"]) * 2,
        [200, 200],
        True,
    ),
    "HTTP/1.0 kept, capitals": (
        http(version=b"HTTP/1.0", headers=[b"CONNECTION: Keep-Alive"]) * 2,
        [200, 200],
        True,
    ),
    "HTTP/1.0 twice": (http(version=b"HTTP/1.0") * 2, [200], False),
    "kept and closed": (
        http(headers=[b"Connection: keep-alive", b"Connection: close"]) * 2,
        [200],
        False,
    ),
    "closed in a list": (http(headers=[b"Connection: x, close"]) * 2, [200], False),
    "CLOSE": (http(headers=[b"Connection: CLOSE"]) * 2, [200], False),
    "HTTP/1.0 without Host": (b"GET " + TRACK + b" HTTP/1.0\r\n\r\n", [200], False),
    "a Host among the trailers": (
        http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"0\r\nHost: x\r\n\r\n"),
        [200],
        True,
    ),
    "websocket": (
        http(headers=[b"Connection: Upgrade", b"Upgrade: websocket"]) + b"\x81\x05hello",
        [200],
        False,
    ),
    "h2c": (
        http(headers=[b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"]) + b"PRI * HTTP/2.0",
        [200],
        False,
    ),
    "Upgrade alone": (http(headers=[b"Upgrade: h2c"]) * 2, [200, 200], True),
    "post with an upgrade": (
        http(
            TRACK,
            b"POST",
            [b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5"],
            b"abcde",
        ),
        [200],
        False,
    ),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1" + END + b"\x16\x03\x01", [404], False),
    "CONNECT to a pixel": (b"CONNECT " + TRACK + b" HTTP/1.1" + END, [405], False),
    "quotes in the target": (http(TRACK + b'&properties.a="<>{}|^`\\'), [200], True),
    "absolute, another host": (http(b"http://other.example" + PAGE) * 2, [200, 200], True),
}


@pytest.mark.parametrize("piece_bytes", [1, 10**9])
@pytest.mark.parametrize("name", ODD)
def test_unusual_requests_get_responses(name: str, piece_bytes: int) -> None:
    data, expected, stays_open = ODD[name]
    fake = FakeCollector()
    connection, transport = fake.connect()
    with structlog.testing.capture_logs() as logs:
        feed(connection, data, piece_bytes)
        fake.disk.settle()
    responses = read_responses(transport.sent)
    assert expected == [response.status for response in responses]
    assert (stays_open, stays_open) == (not responses[-1].closes, not is_over(transport))
    assert expected.count(200) == len(events(fake))
    assert [] == logs


def test_http_1_0_gets_connection_keep_alive() -> None:
    request = http(version=b"HTTP/1.0", headers=[b"Connection: keep-alive"])
    first, second = read_responses(FakeCollector().exchange(request * 2))
    assert "keep-alive" == first.headers["Connection"] == second.headers["Connection"]


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = [b"Expect: 100-continue", b"Content-Length: 3"]


def test_100_continue_is_sent_before_the_body() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http(TRACK, b"POST", EXPECT))
    assert CONTINUE == transport.take()
    connection.data_received(b"abc")
    fake.disk.settle()
    assert [200] == statuses(transport.sent)


def test_100_continue_does_not_overtake_a_response() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() + http(TRACK, b"POST", EXPECT))
    assert b"" == transport.sent
    fake.disk.settle()
    assert transport.sent.startswith(b"HTTP/1.1 200 OK\r\n")


def test_100_continue_is_sent_after_the_response_to_an_earlier_request() -> None:
    """See RFC 9110 section 10.1.1. The client would wait forever otherwise."""
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http() + http(TRACK, b"POST", EXPECT))
    fake.disk.settle()
    assert [200, 100] == statuses(transport.sent)
    connection.data_received(b"abc")
    fake.disk.settle()
    assert [200, 100, 200] == statuses(transport.sent)


def test_http_1_0_never_gets_100_continue() -> None:
    """See RFC 9110 section 10.1.1. The client would read it as the final response."""
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.data_received(http(TRACK, b"POST", EXPECT, version=b"HTTP/1.0"))
    assert b"" == transport.sent
    connection.data_received(b"abc")
    fake.disk.settle()
    assert [200] == statuses(transport.sent)


def test_100_continue_is_not_written_while_writing_is_paused() -> None:
    fake = FakeCollector()
    connection, transport = fake.connect()
    connection.pause_writing()
    connection.data_received(http(TRACK, b"POST", EXPECT))
    assert b"" == transport.sent
    connection.resume_writing()
    assert CONTINUE == transport.sent


def test_a_request_within_a_body_is_not_read() -> None:
    fake = FakeCollector()
    inner = http(TRACK.replace(b"u1", b"hidden"))
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    sent = fake.exchange(
        http(TRACK, b"POST", [b"Content-Length: %d" % len(inner)], inner)
        + http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], body)
    )
    assert [200, 200] == statuses(sent)
    assert ["u1", "u1"] == [event["userId"] for event in events(fake)]
