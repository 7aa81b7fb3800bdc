"""Kinds of text that settings hold: what is right, and how that is said.

A field names its kind in the `extra` of its `Meta`: `extra={"kind": "address"}`.
"""

from __future__ import annotations

import base64
import importlib.util
import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from pixelfast.config.units import ADDRESS_ALLOWED, parse_address

__all__ = ["TEXTS", "TextKind", "is_base_url"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
# What collectors read for another purpose, or what belongs to the connection.
_READ_HEADERS = {
    *("user-agent", "accept-language", "referer", "origin", "x-real-ip", "x-forwarded-for"),
    *("host", "connection", "expect", "content-length", "transfer-encoding", "upgrade"),
    "proxy-connection",
}
_HEALTH_PATH = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")


class TextKind(NamedTuple):
    """One kind: whether a text is of it, and what is allowed in words."""

    is_right: Callable[[str], bool]
    allowed: str


def is_base_url(text: str) -> bool:
    """Whether a path can be put behind a URL: it has no query of its own.

    >>> is_base_url("https://px.example.com"), is_base_url("px.example.com"), is_base_url("a b")
    (True, False, False)
    """
    return _is_url(text) and "?" not in text


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - the attribute raises where the port is no number
    except ValueError:
        return False
    # urlsplit takes white space in a host, and drops it where it is at the ends.
    is_whole = text.isprintable() and not any(char.isspace() for char in text)
    is_plain = not parts.fragment and "@" not in parts.netloc
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and is_whole and is_plain


def _is_place(text: str) -> bool:
    return all(text.split("."))


def _is_health_path(text: str) -> bool:
    """Whether it is a path as paths are compared, and not one that has another meaning."""
    is_taken = text == "/robots.txt" or text.startswith("/pixel/")
    return _HEALTH_PATH.fullmatch(text) is not None and not is_taken


def _is_free_header(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None and text.lower() not in _READ_HEADERS


def _is_signing_secret(text: str) -> bool:
    """Whether it is one of the Standard Webhooks specification, "Signature scheme"."""
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= size <= 64


TEXTS = {
    "address": TextKind(_is_address, ADDRESS_ALLOWED),
    "address?": TextKind(lambda text: not text or _is_address(text), f'{ADDRESS_ALLOWED}, or ""'),
    "health path?": TextKind(
        lambda text: not text or _is_health_path(text),
        'a path such as "/health", of letters, digits and -._~ between slashes, but not '
        '/robots.txt and not below /pixel/; or ""',
    ),
    "trusted": TextKind(
        lambda text: text == "unix:" or _is_network(text),
        'a network such as "10.0.0.0/8" or "::1/128", an address, or "unix:"',
    ),
    "header name?": TextKind(
        lambda text: not text or _is_free_header(text),
        'a header name such as "X-Request-ID" that has no other meaning; or ""',
    ),
    "base url": TextKind(is_base_url, 'a URL without query: "https://HOST"'),
    "url": TextKind(_is_url, 'a URL without user, password and #: "https://HOST/PATH"'),
    "signing secret": TextKind(_is_signing_secret, "whsec_ followed by 24 to 64 bytes in base64"),
    "compression": TextKind(
        lambda text: text != "zstd" or importlib.util.find_spec("zstandard") is not None,
        "\"none\", or the package for it: pip install 'pixelfast[zstd]'",
    ),
    "path": TextKind(lambda text: not _CONTROL.search(text), "a path without control characters"),
    "place": TextKind(_is_place, 'names with dots between them: "properties.products.price"'),
    "secret": TextKind(
        lambda text: not _CONTROL.search(text), "a string without control characters"
    ),
    # RFC 7617 section 2: the first colon ends the user name.
    "username": TextKind(
        lambda text: ":" not in text and not _CONTROL.search(text),
        "a string without control characters and colons",
    ),
    "token": TextKind(
        lambda text: _VISIBLE_ASCII.fullmatch(text) is not None,
        "visible ASCII characters without spaces",
    ),
}
