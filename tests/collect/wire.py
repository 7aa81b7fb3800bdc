"""Build HTTP/1.1 requests, and parse responses as a strict client does."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from pixelfast.collect import Connection
from tests.fakes import FakeCollector, FakeTransport

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
TRACK = b"/pixel/v1/track?writeKey=wk-demo&userId=u1&event=Opened"
PAGE = b"/pixel/v1/page?writeKey=wk-demo&anonymousId=a1"
ORIGIN = b"https://shop.example"
# A header line with which the scan leaves a request to the reader, because of the last space.
TO_READER = b"X-Padded: a "

# The headers of every response on a pixel route, except Date and Connection.
PIXEL_HEADERS = {
    "Content-Type": "image/gif",
    "Content-Length": "43",
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0, private",
    "Pragma": "no-cache",
    "Expires": "0",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
CORS_HEADERS = {
    "Access-Control-Allow-Origin": ORIGIN.decode(),
    "Access-Control-Allow-Credentials": "true",
    "Vary": "Origin",
}


def http(
    target: bytes = TRACK,
    method: bytes = b"GET",
    headers: Iterable[bytes] = (),
    body: bytes = b"",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    """Return a request; `headers` are lines without line ends."""
    lines = [b"%b %b %b" % (method, target, version), b"Host: pixel.example", *headers]
    return b"\r\n".join([*lines, b"", body])


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        return self.headers.get("X-Pixelfast-Error")

    @property
    def closes(self) -> bool:
        return self.headers.get("Connection") == "close"


def read_responses(sent: bytes, *methods: bytes) -> list[Response]:
    """Return all responses, up to the last byte. The default for each of `methods` is GET."""
    found: list[Response] = []
    start = 0
    while start < len(sent):
        end = sent.find(b"\r\n\r\n", start)
        assert end >= 0, f"unterminated headers: {sent[start : start + 200]!r}"
        first, *lines = sent[start:end].decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z -]+", first)
        assert match, f"invalid status line: {first!r}"
        headers: dict[str, str] = {}
        for line in lines:
            name, separator, value = line.partition(": ")
            assert separator, f"invalid header: {line!r}"
            assert re.fullmatch(r"[A-Za-z0-9-]+", name), f"invalid header name: {line!r}"
            assert name not in headers, f"{name} is duplicated"
            headers[name] = value
        status = int(match[1])
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        has_body = status >= 200 and status != 204 and method != b"HEAD"
        start = end + 4 + (int(headers["Content-Length"]) if has_body else 0)
        assert start <= len(sent), f"incomplete body: {sent[end:]!r}"
        found.append(Response(status, headers, sent[end + 4 : start]))
    return found


def statuses(sent: bytes, *methods: bytes) -> list[int]:
    return [response.status for response in read_responses(sent, *methods)]


def ask(fake: FakeCollector, request: bytes, **options: Any) -> Response:
    """Send a request over a new connection and return the only response."""
    method = request.split(b" ", 1)[0]
    (response,) = read_responses(fake.exchange(request, **options), method)
    return response


def events(fake: FakeCollector) -> list[dict[str, Any]]:
    return [orjson.loads(event) for _, event in fake.disk.events()]


def event_of(fake: FakeCollector, request: bytes, **options: Any) -> dict[str, Any]:
    """Send a request and return the event that it stores."""
    before = len(fake.disk.events())
    assert 200 == ask(fake, request, **options).status
    (event,) = events(fake)[before:]
    return event


def feed(connection: Connection, data: bytes, piece_bytes: int) -> None:
    for start in range(0, len(data), piece_bytes):
        connection.data_received(data[start : start + piece_bytes])


def fail_commit(fake: FakeCollector, error: int) -> None:
    """Make the current commit fail, and its retry in another segment as well."""
    fake.disk.complete(error)
    fake.loop.turn()
    fake.disk.complete(error)
    fake.loop.turn()


def is_over(transport: FakeTransport) -> bool:
    """Return whether the collector has ended the connection."""
    return transport.has_eof or transport.is_closed or transport.is_aborted
