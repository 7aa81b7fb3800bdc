"""NDJSON that every parser splits at the same places."""

from __future__ import annotations

import re

__all__ = ["escape_line_ends"]

# NEL, LINE SEPARATOR and PARAGRAPH SEPARATOR in UTF-8. One combined pattern would take ten times as
# long. Neither pattern can match within another character.
_NEXT_LINE = re.compile(rb"\xc2\x85")
_SEPARATOR = re.compile(rb"\xe2\x80([\xa8\xa9])")


def escape_line_ends(body: bytes) -> bytes:
    r"""Return NDJSON with U+0085, U+2028 and U+2029 as escapes, which mean the same in JSON.

    JSON strings may contain them unescaped (RFC 8259 section 7), but many parsers treat them as the
    end of a line: Python's `str.splitlines()`, Java's `\R`, Node's `readline`.

    >>> escape_line_ends('{"a":"\u2028\u0085"}\n'.encode())
    b'{"a":"\\u2028\\u0085"}\n'
    """
    if body.isascii():
        return body
    if _NEXT_LINE.search(body):
        body = body.replace(b"\xc2\x85", b"\\u0085")
    if _SEPARATOR.search(body):
        body = body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return body
