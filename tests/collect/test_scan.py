"""The scan accepts only requests that the parser reads the same way; it leaves the others to it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelfast.collect.reader import scan
from tests.examples import examples

KEPT = {
    b"user-agent",
    b"origin",
    b"referer",
    b"accept-language",
    b"x-forwarded-for",
    b"x-real-ip",
}
MESSAGE_ID = b"X-Request-ID"
BROWSER = [
    b"Host: pixel.example.com",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    b"Accept: image/avif,image/webp,*/*",
    b"Accept-Language: en-US,en;q=0.5",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Referer: https://example.com/",
    b"X-Forwarded-For: 203.0.113.7",
    b"Sec-Fetch-Dest: image",
]


def request(
    target: bytes = b"/pixel/v1/page?writeKey=k", lines: Iterable[bytes] = BROWSER
) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, b"", b""])


def with_ascii_target(data: bytes) -> bytes:
    """Replace bytes from 0x80 on in the target, which the parser rejects."""
    end = data.find(b"\r")
    return data[:end].translate(bytes(range(128)) + b"_" * 128) + data[end:]


# RFC 9110 section 7.2, with only the hosts of RFC 3986 section 3.2.2.
HOST = re.compile(rb"(?:[\w-]+(?:\.[\w-]+)*\.?|\[([0-9A-Fa-f:.]+)\])?(?::[0-9]*)?", re.ASCII)


def is_host(value: bytes) -> bool:
    match = HOST.fullmatch(value.strip(b" \t"))
    if match is None:
        return False
    if match[1] is None:
        return True
    try:
        ipaddress.IPv6Address(match[1].decode())
    except ValueError:
        return False
    return True


class Seen:
    """Parse the first request of some bytes with httptools."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.completed = 0
        self.body = b""
        self.parser = HttpRequestParser(self)
        self.error: Exception | None = None
        self.keeps_alive = self.upgrades = False
        try:
            self.parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.error = error

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.completed += 1
        self.keeps_alive = self.parser.should_keep_alive()
        self.upgrades = self.parser.should_upgrade()


def assert_same(data: bytes) -> bool:
    """Compare scan and parser; return whether the scan accepted the request."""
    found = scan(data, MESSAGE_ID)
    if found is None:
        return False
    length, kept = found
    data = with_ascii_target(data)
    seen = Seen(data[:length])
    assert (None, 1, b"") == (seen.error, seen.completed, seen.body)
    assert (b"GET", "1.1") == (seen.parser.get_method(), seen.parser.get_http_version())
    assert seen.keeps_alive
    assert not seen.upgrades
    assert 0 == Seen(data[: length - 1]).completed, "the request must not end before"
    headers = [
        (b"message-id" if name == MESSAGE_ID.lower() else name, value)
        for name, value in seen.headers
        if name in KEPT or name == MESSAGE_ID.lower()
    ]
    assert len(headers) == len(dict(headers)), "each header once"
    kept["target"] = with_ascii_target(kept["target"] + b"\r")[:-1]
    assert kept == {"target": seen.target} | {n.decode(): value for n, value in headers}
    said = [value.lower() for name, value in seen.headers if name == b"connection"]
    assert said in ([], [b"keep-alive"])
    (host,) = [value for name, value in seen.headers if name == b"host"]
    assert is_host(host)
    return True


def test_a_browsers_request_is_plain() -> None:
    assert assert_same(request())
    assert assert_same(request() * 3)
    assert assert_same(request() + b"POST /")
    assert assert_same(request(lines=[b"hOST:x", b"a:\t b c"]))
    assert assert_same(request(b"/\xc3\xa9?\x80=\xff"))


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"CONNECTION:KEEP-ALIVE",
        b"connection: \t Keep-Alive",
        b"X-Connection: close",
        b"Connection2: close",
        b"Connectio: close",
        b"Keep-Alive: timeout=5, max=100",
    ],
)
def test_a_request_that_keeps_its_connection_alive_is_plain(line: bytes) -> None:
    for lines in ([*BROWSER, line], [line, *BROWSER]):
        assert assert_same(request(lines=lines))
        assert assert_same(request(lines=lines) * 3)


NOT_PLAIN = {
    "close": [b"Host: a", b"CONNECTION: close"],
    "keep-alive twice": [b"Host: a", b"Connection: keep-alive", b"connection: keep-alive"],
    "keep-alive and close": [b"Host: a", b"Connection: keep-alive", b"Connection: close"],
    "close and keep-alive": [b"Host: a", b"Connection: close", b"Connection: keep-alive"],
    "keep-alive in a list": [b"Host: a", b"Connection: keep-alive,"],
    "keep-alive and close in a list": [b"Host: a", b"Connection: keep-alive, close"],
    "upgrade in a list": [b"Host: a", b"Connection: Upgrade, keep-alive", b"Upgrade: h2c"],
    "keep-alive with a parameter": [b"Host: a", b"Connection: keep-alive; timeout=5"],
    "keep-alive in quotes": [b"Host: a", b'Connection: "keep-alive"'],
    "keep-alive with a space inside": [b"Host: a", b"Connection: keep- live"],
    "keep-alive before a space": [b"Host: a", b"Connection: keep-alive "],
    "keep-alive before a tab": [b"Host: a", b"Connection: keep-alive\t"],
    "keep-alive, folded": [b"Host: a", b"Connection: keep-alive", b" , close"],
    "keep-alive on the next line": [b"Host: a", b"Connection:", b" keep-alive"],
    "keep-alive after a space": [b"Host: a", b"Connection : keep-alive"],
    "keepalive": [b"Host: a", b"Connection: keepalive"],
    "keep-alives": [b"Host: a", b"Connection: keep-alives"],
    "a nul in keep-alive": [b"Host: a", b"Connection: keep-aliv\x00"],
    "a byte over 0x80 in keep-alive": [b"Host: a", b"Connection: keep-aliv\xe5"],
    "an empty connection header": [b"Host: a", b"Connection:"],
    "proxy connection": [b"Host: a", b"Proxy-Connection: close"],
    "length": [b"Host: a", b"Content-Length: 0"],
    "encoding": [b"Host: a", b"Transfer-Encoding: chunked"],
    "upgrade": [b"Host: a", b"Upgrade: websocket"],
    "expect": [b"Host: a", b"Expect: 100-continue"],
    "no host": [b"Accept: */*"],
    "two hosts": [b"Host: a", b"Host: a"],
    "no host's name": [b"Host: a/b"],
    "two agents": [b"Host: a", b"User-Agent: a", b"User-Agent: b"],
    "two proxies": [b"Host: a", b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-For: 192.0.2.2"],
    "two message ids": [b"Host: a", b"X-Request-ID: a", b"x-request-id: b"],
    "folded": [b"Host: a", b"X: a", b" b"],
    "empty": [b"Host: a", b"X:"],
    "space before the colon": [b"Host: a", b"Content-Length : 3"],
    "space behind a value": [b"Host: a", b"X: a "],
    "no name": [b"Host: a", b": a"],
    "no colon": [b"Host: a", b"X"],
    "a control": [b"Host: a", b"X: \x01"],
    "a bare line feed": [b"Host: a", b"X: a\nContent-Length: 3"],
    "a bare return": [b"Host: a", b"X: a\rContent-Length: 3"],
    "a nul": [b"Host: a", b"X: a\x00"],
    "too many": [b"Host: a"] + [b"X: a"] * 100,
    "too long": [b"Host: a", b"X: " + b"a" * 33000],
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_headers_are_left_to_the_parser(name: str) -> None:
    assert scan(request(lines=NOT_PLAIN[name]), MESSAGE_ID) is None


def test_the_configured_message_id_header_is_kept() -> None:
    data = request(lines=[b"Host: a", b"x-REQUEST-id: 17", b"X-Request-ID2: 18", b"X-Trace: 19"])
    for name, expected in (
        (b"X-Request-ID", b"17"),
        (b"X-Trace", b"19"),
        (b"X", None),
        (b"", None),
    ):
        found = scan(data, name)
        assert found is not None
        assert expected == found[1].get("message-id")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request()[:-1],
        request()[:-2],
        request().replace(b"GET", b"HEAD"),
        request().replace(b"GET", b"get"),
        request().replace(b"1.1", b"1.0"),
        request(lines=[*BROWSER, b"Connection: keep-alive"]).replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b" HTTP/1.1", b""),
        request().replace(b"GET ", b"GET  "),
        request().replace(b" HTTP", b"  HTTP"),
        request().replace(b"\r\n", b"\n"),
        b"\r\n" + request(),
        request(b"http://example.com/pixel/v1/page"),
        request(b"*"),
        request(b"/a#b"),
        request(b"/a b"),
        request(b"/\x7f"),
        request(b"/a\tb"),
        request(b"/" + b"a" * 33000),
    ],
)
def test_other_request_lines_are_left_to_the_parser(data: bytes) -> None:
    assert scan(data) is None


HOSTS = st.one_of(
    st.just("a"),
    st.text("ab.:[]-_09/@", max_size=8),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=4).map(str),
).map(str.encode)
TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=20).map(str.encode)
NAMES = st.one_of(
    st.sampled_from(
        "Host host User-Agent Referer Origin Accept-Language X-Forwarded-For X-Real-IP Connection "
        "X-Request-ID x-request-id X-Request-IP "
        "Content-Length Transfer-Encoding Upgrade Expect TE Trailer Keep-Alive HTTP2-Settings "
        "Proxy-Connection Cookie".split()
    ).map(str.encode),
    TOKENS,
    st.binary(max_size=6),
)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
TEXTS = st.one_of(
    WORDS.map(str.encode), st.binary(max_size=12), st.text(max_size=6).map(str.encode)
)
ENDS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    path = b"/" + draw(st.one_of(TEXTS, st.just(b"pixel/v1/track?a=b&c=%20")))
    parts = [
        b"GET ",
        path,
        draw(st.sampled_from([b" HTTP/1.1"] * 8 + [b" HTTP/1.0", b" HTTP/1.1 "])),
    ]
    lines = draw(st.lists(st.tuples(NAMES, TEXTS), max_size=5))
    if draw(st.integers(0, 9)):
        lines.insert(draw(st.integers(0, len(lines))), (b"Host", draw(HOSTS)))
    for name, text in lines:
        space = draw(st.sampled_from([b": ", b":", b":\t ", b": ", b" :"]))
        parts += [draw(ENDS), name + space + text]
    return b"".join(parts) + draw(ENDS) + draw(ENDS) + draw(st.sampled_from([b"", b"GET / HTTP"]))


@examples(5000)
@given(requests())
@example(request(b'/a?b=c&d=%zz"<>^`{|}\\'))
@example(request(lines=[b"Host: a", b"X: \xff\x80"]))
@example(request("/каша?a=—".encode()))
def test_the_parser_reads_the_same(data: bytes) -> None:
    assert_same(data)


WHOLE = request(lines=[*BROWSER, b"Connection: keep-alive"])


@examples(5000)
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_the_parser_reads_the_same_from_a_modified_request(
    place: int, inserted: bytes, left_out: int
) -> None:
    assert_same(WHOLE[:place] + inserted + WHOLE[place + left_out :])


CONNECTION_NAMES = st.sampled_from(
    [b"Connection"] * 4
    + [b"CONNECTION", b"connectioN", b"Connection-", b"Connectio", b"X-Connection", b"Connection "]
    + [b"Proxy-Connection", b"Keep-Alive", b"Upgrade", b"\tConnection"]
)
OPTIONS = st.sampled_from(
    [b"keep-alive"] * 6
    + [b"Keep-Alive", b"KEEP-ALIVE", b"close", b"CLOSE", b"upgrade", b"TE", b"keep-alive2", b""]
    + [b"keep", b"-alive", b"x", b'"keep-alive"', b"keep\x00alive", b"keep-aliv\xe5"]
)
BETWEEN = st.sampled_from([b"", b" ", b"\t", b",", b", ", b" ,", b";", b"\r\n ", b"\r\n\t", b"\n"])


@st.composite
def connection_lines(draw: st.DrawFn) -> bytes:
    """Return a header line about the connection, often `Connection: keep-alive`."""
    value = draw(OPTIONS)
    while draw(st.integers(0, 3)) == 3:
        value += draw(BETWEEN) + draw(OPTIONS)
    before = draw(st.sampled_from([b": "] * 6 + [b":", b":\t", b":  \t", b":\r\n ", b" :", b":,"]))
    return (
        draw(CONNECTION_NAMES) + before + value + draw(st.sampled_from([b""] * 6 + [b" ", b"\t"]))
    )


@examples(5000)
@given(
    st.lists(connection_lines(), min_size=1, max_size=2),
    st.integers(0, len(BROWSER)),
    st.sampled_from([b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"HTTP/1.2"]),
    st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"x"]),
)
@example([b"Connection: keep-alive", b"Connection: close"], 0, b"HTTP/1.1", b"")
@example([b"Connection: keep-alive"], 3, b"HTTP/1.1", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
def test_the_parser_reads_the_same_about_the_connection(
    lines: list[bytes], place: int, version: bytes, behind: bytes
) -> None:
    data = request(lines=[*BROWSER[:place], *lines, *BROWSER[place:]])
    assert_same(data.replace(b"HTTP/1.1", version) + behind)


def test_many_requests_about_the_connection_are_plain() -> None:
    """Otherwise the test above would compare nothing."""
    found = []

    @settings(max_examples=300, database=None)
    @given(connection_lines())
    def count(line: bytes) -> None:
        if assert_same(request(lines=[*BROWSER, line])):
            found.append(line)

    count()
    assert len(found) > 20
    assert any(line.lower() == b"connection: keep-alive" for line in found)
