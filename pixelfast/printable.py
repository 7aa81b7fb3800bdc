"""Makes strings from outside safe to print and log.

Event names come from public URLs, and responses from other servers. A control sequence in one of
them would control the operator's terminal, a line feed would forge a line, and a bidirectional mark
would change how text is displayed. All of these are replaced by visible escapes.
"""

from __future__ import annotations

import json
import re

__all__ = ["json_text", "printable", "printable_json", "printable_lines", "toml_text"]

# Categories Cc, Cf, Cs, Zl and Zp of the Unicode Character Database, version 16 (controls, format
# characters, surrogates, line and paragraph separators), and characters without a glyph.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff"
    "\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    r"""Escape the characters of a string that control a terminal or are invisible.

    >>> print(printable("a\x1b]0;title\x07 \u202eb\n"), printable("naïve 日本 🎉"))
    a\x1b]0;title\x07 \u202eb\x0a naïve 日本 🎉
    """
    return _UNSAFE.sub(_escape, text)


def printable_lines(text: str) -> str:
    r"""Escape a string like `printable`, but keep line feeds.

    >>> print(printable_lines("first\nsec\x1bond"))
    first
    sec\x1bond
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    r"""Escape the same characters in JSON; its value stays the same.

    >>> print(printable_json('{"event":"\x9b2J\u202e"}'))
    {"event":"\u009b2J\u202e"}

    Line feeds between values are kept. A JSON string contains none.
    """
    if text.isascii() and "\x7f" not in text:
        return text  # a JSON string has no raw character below U+0020
    return _UNSAFE.sub(_escape_json, text)


def json_text(value: object) -> str:
    """Return a value as one line of JSON that is safe to print."""
    return printable_json(json.dumps(value, ensure_ascii=False))


def toml_text(text: str) -> str:
    r"""Return a string as a TOML string that is safe to print.

    >>> print(toml_text("a\x7f\U000e0041"))
    "a\u007f\U000e0041"
    """
    return _UNSAFE.sub(_escape_toml, json.dumps(text, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_toml(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_json(match: re.Match[str]) -> str:
    if match[0] == "\x7f":  # ASCII, which json does not escape
        return "\\u007f"
    return match[0] if match[0] in "\n\r\t" else json.dumps(match[0])[1:-1]
