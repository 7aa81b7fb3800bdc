"""Render the bytes of responses; common responses are rendered once per second and cached.

Pixel routes return the same 43-byte GIF with every status. Browsers display the body of an image
response with a 4xx or 5xx status as well, so a page never shows a broken image, and the status
still tells scripts and proxies the truth."""

from __future__ import annotations

import base64
import time
from email.utils import formatdate
from http import HTTPStatus

__all__ = ["ANY_ORIGIN", "CLOSE", "CONTINUE", "KEEP", "KEEP_SAID", "Responses"]

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
ALLOW = b"GET, HEAD, POST, OPTIONS"
ANY_ORIGIN = b"*"

# The Connection header of a response: none (HTTP/1.1 keeps the connection), keep-alive (for clients
# that ask for it, possibly with HTTP/1.0), or close.
KEEP, KEEP_SAID, CLOSE = 0, 1, 2
_CONNECTION = {KEEP: b"", KEEP_SAID: b"Connection: keep-alive\r\n", CLOSE: b"Connection: close\r\n"}

_PIXEL_HEADERS = (
    b"Content-Type: image/gif\r\n"
    b"Content-Length: 43\r\n"
    b"Cache-Control: no-store, no-cache, must-revalidate, max-age=0, private\r\n"
    b"Pragma: no-cache\r\n"
    b"Expires: 0\r\n"
    b"Cross-Origin-Resource-Policy: cross-origin\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)
_ROBOTS = b"User-agent: *\nDisallow: /\n"
_NOT_FOUND = b"Not found. Pixels are at /pixel/v1/track and /pixel/v1/page\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

assert len(GIF) == 43


class Responses:
    """Render responses, and cache them until `tick`.

    Call `tick` once per second, because the Date header changes (RFC 9110 section 6.6.1).

    >>> Responses().robots(CLOSE, is_head=False).split(b"\\r\\n")[-1]
    b'User-agent: *\\nDisallow: /\\n'
    """

    def __init__(self) -> None:
        self._rendered: dict[tuple[object, ...], bytes] = {}
        self._date = b""
        self.tick(time.time())

    def tick(self, now_s: float) -> None:
        """Drop cached responses if the Date header has changed.

        Args:
            now_s: the time in seconds since 1970.
        """
        date = f"Date: {formatdate(now_s, usegmt=True)}\r\n".encode("ascii")
        if date != self._date:
            self._date = date
            self._rendered.clear()

    def pixel(
        self,
        status: int = 200,
        connection: int = KEEP,
        *,
        reason: str = "",
        retry_after_s: int = 0,
        origin: bytes | None = None,
        is_head: bool = False,
    ) -> bytes:
        """Return the response of a pixel route.

        Args:
            status: the status code.
            connection: `KEEP`, `KEEP_SAID` or `CLOSE`.
            reason: the value of X-Pixelfast-Error; empty for no header.
            retry_after_s: the value of Retry-After; 0 for no header.
            origin: the Origin header of the request, echoed for CORS; `ANY_ORIGIN` to allow every
                origin, but no credentials; None for no CORS headers.
            is_head: omit the body, because the request was HEAD.
        """
        if origin is not None:
            return self._pixel(status, connection, reason, retry_after_s, origin, is_head)
        key = (status, connection, reason, retry_after_s, is_head)
        rendered = self._rendered.get(key)
        if rendered is None:
            rendered = self._rendered[key] = self._pixel(
                status, connection, reason, retry_after_s, None, is_head
            )
        return rendered

    def _pixel(
        self,
        status: int,
        connection: int,
        reason: str,
        retry_after_s: int,
        origin: bytes | None,
        is_head: bool,
    ) -> bytes:
        head = [_status_line(status), self._date, _PIXEL_HEADERS, _CONNECTION[connection]]
        if origin is not None:
            head.append(_cors(origin))
        if reason:
            head.append(b"X-Pixelfast-Error: %b\r\n" % reason.encode("ascii"))
        if retry_after_s:
            head.append(b"Retry-After: %d\r\n" % retry_after_s)
        if status == 405:
            head.append(b"Allow: %b\r\n" % ALLOW)
        head.append(b"\r\n")
        if not is_head:
            head.append(GIF)
        return b"".join(head)

    def preflight(self, connection: int, origin: bytes | None) -> bytes:
        """Return the 204 for OPTIONS, with the headers of a CORS preflight."""
        return b"".join(
            [
                _status_line(204),
                self._date,
                _CONNECTION[connection],
                b"Allow: %b\r\n" % ALLOW,
                b"Access-Control-Allow-Methods: %b\r\n" % ALLOW,
                b"Access-Control-Allow-Headers: Content-Type\r\n",
                b"Access-Control-Max-Age: 86400\r\n",
                _cors(origin or ANY_ORIGIN),
                b"\r\n",
            ]
        )

    def robots(self, connection: int, *, is_head: bool) -> bytes:
        """Return robots.txt, which disallows crawlers."""
        return self._text(200, connection, _ROBOTS, is_head)

    def not_found(self, connection: int, *, is_head: bool) -> bytes:
        """Return the 404 of a path that is neither a route nor below /pixel/."""
        return self._text(404, connection, _NOT_FOUND, is_head, reason="not-found")

    def health(
        self, status: int, connection: int, *, reason: str, retry_after_s: int, is_head: bool
    ) -> bytes:
        """Return the response to a health check: 200, or 503 with a reason."""
        body = b"ok" if status == 200 else b"unavailable"
        more = b"Cache-Control: no-store\r\n"
        if retry_after_s:
            more += b"Retry-After: %d\r\n" % retry_after_s
        return self._text(status, connection, body, is_head, reason=reason, more=more)

    def _text(
        self,
        status: int,
        connection: int,
        body: bytes,
        is_head: bool,
        *,
        reason: str = "",
        more: bytes = b"",
    ) -> bytes:
        return b"".join(
            [
                _status_line(status),
                self._date,
                b"Content-Type: text/plain; charset=utf-8\r\n",
                b"Content-Length: %d\r\n" % len(body),
                b"X-Content-Type-Options: nosniff\r\n",
                more,
                _CONNECTION[connection],
                b"X-Pixelfast-Error: %b\r\n" % reason.encode("ascii") if reason else b"",
                b"\r\n",
                b"" if is_head else body,
            ]
        )


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))


def _cors(origin: bytes) -> bytes:
    if origin == ANY_ORIGIN:
        return b"Access-Control-Allow-Origin: *\r\n"
    return (
        b"Access-Control-Allow-Origin: %b\r\n"
        b"Access-Control-Allow-Credentials: true\r\n"
        b"Vary: Origin\r\n" % origin
    )
