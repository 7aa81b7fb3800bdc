"""Kinds of strings that settings hold: how each is checked, and how an error describes it.

A field names its kind in the `extra` of its `Meta`: `extra={"kind": "address"}`. A kind whose name
ends in "?" allows the empty string as well.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from pixelfast.config.brokers import DEAD_TOPIC_SUFFIX
from pixelfast.config.packages import is_installed
from pixelfast.config.units import ADDRESS_ALLOWED, parse_address

__all__ = ["STRING_KINDS", "StringKind", "is_base_url"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_BROKER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._-]+):(\d{1,5})", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
# Headers that collectors read for another purpose, or that belong to the connection.
_READ_HEADERS = {
    *("user-agent", "accept-language", "referer", "origin", "x-real-ip", "x-forwarded-for"),
    *("host", "connection", "expect", "content-length", "transfer-encoding", "upgrade"),
    "proxy-connection",
}
_NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)
_MAX_TOPIC = 249  # characters
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
_HEALTH_PATH = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")


class StringKind(NamedTuple):
    """A kind of string: the check of a value, and a description of the allowed values."""

    is_valid: Callable[[str], bool]
    allowed: str


def is_base_url(string: str) -> bool:
    """Return whether a path can be appended to a URL, that is, whether it has no query.

    >>> is_base_url("https://px.example.com"), is_base_url("px.example.com"), is_base_url("a b")
    (True, False, False)
    """
    return _is_url(string) and "?" not in string


def _is_address(string: str) -> bool:
    try:
        parse_address(string)
    except ValueError:
        return False
    return True


def _is_network(string: str) -> bool:
    try:
        ipaddress.ip_network(string, strict=False)
    except ValueError:
        return False
    return True


def _is_url(string: str) -> bool:
    try:
        parts = urlsplit(string)
        parts.port  # noqa: B018 - reading it raises ValueError if the port is not a number
    except ValueError:
        return False
    # urlsplit accepts white space in a host and removes it at both ends.
    is_whole = string.isprintable() and not any(char.isspace() for char in string)
    is_plain = not parts.fragment and "@" not in parts.netloc
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and is_whole and is_plain


def _is_field(string: str) -> bool:
    return all(string.split("."))


def _is_health_path(string: str) -> bool:
    """Return whether a path is in its normalized form and not used for another purpose."""
    is_used = string == "/robots.txt" or string.startswith("/pixel/")
    return _HEALTH_PATH.fullmatch(string) is not None and not is_used


def _is_free_header(string: str) -> bool:
    return _TOKEN.fullmatch(string) is not None and string.lower() not in _READ_HEADERS


def _is_broker(string: str) -> bool:
    match = _BROKER.fullmatch(string)
    if match is None or not 0 < int(match[2]) <= 65535:
        return False
    if match[1] is None:
        return True
    try:
        ipaddress.IPv6Address(match[1])
    except ValueError:
        return False
    return True


def _is_topic(string: str) -> bool:
    """Return whether it is a topic's name for every source and type.

    Source: Apache Kafka's `org.apache.kafka.common.internals.Topic`.
    """
    longest = string.replace("{source}", "s" * 63).replace("{type}", "track")
    is_name = re.fullmatch(r"[A-Za-z0-9._-]+", longest) is not None
    return is_name and len(longest) <= _MAX_TOPIC and longest not in (".", "..")


def _is_signing_secret(string: str) -> bool:
    """Return whether it is a secret of the Standard Webhooks specification, "Signature scheme"."""
    try:
        size = len(base64.b64decode(string.removeprefix("whsec_"), validate=True))
    except ValueError:
        return False
    return string.startswith("whsec_") and 24 <= size <= 64


def _is_database_host(string: str) -> bool:
    if string.startswith("/"):
        return not _CONTROL.search(string)
    try:
        ipaddress.ip_address(string)
    except ValueError:
        return _HOST.fullmatch(string) is not None
    return True


STRING_KINDS = {
    "address": StringKind(_is_address, ADDRESS_ALLOWED),
    "address?": StringKind(
        lambda string: not string or _is_address(string), f'{ADDRESS_ALLOWED}, or ""'
    ),
    "health path?": StringKind(
        lambda string: not string or _is_health_path(string),
        'a path such as "/health" that consists of letters, digits and -._~ between slashes, other'
        ' than /robots.txt and paths below /pixel/; or ""',
    ),
    "trusted": StringKind(
        lambda string: string == "unix:" or _is_network(string),
        'a network such as "10.0.0.0/8" or "::1/128", an IP address, or "unix:"',
    ),
    "header name?": StringKind(
        lambda string: not string or _is_free_header(string),
        'the name of a header that pixelfast does not use otherwise, such as "X-Request-ID"; or ""',
    ),
    "base url": StringKind(
        is_base_url, 'an http or https URL without a query, such as "https://example.com"'
    ),
    "base url?": StringKind(
        lambda string: not string or is_base_url(string),
        'an http or https URL without a query, such as "https://example.com", or ""',
    ),
    "url": StringKind(
        _is_url,
        "an http or https URL without user name, password and fragment, such as"
        ' "https://example.com/hook"',
    ),
    "signing secret": StringKind(
        _is_signing_secret, "a string of whsec_ and 24 to 64 bytes in base64"
    ),
    "compression": StringKind(
        lambda string: string != "zstd" or is_installed("zstandard"),
        "\"none\", because a package is missing; for zstd: pip install 'pixelfast[zstd]'",
    ),
    "broker": StringKind(
        _is_broker,
        '"HOST:PORT" or "[IPV6]:PORT", with a port from 1 to 65535',
    ),
    "topic": StringKind(
        _is_topic,
        "at most 249 letters, digits, . _ or -, in which {source} and {type} stand for the source"
        " (up to 63 characters) and the type of an event",
    ),
    "cluster topic": StringKind(  # the topic of dead letters has a longer name
        lambda string: (
            "{" not in string and _is_topic(string) and _is_topic(string + DEAD_TOPIC_SUFFIX)
        ),
        f"1 to {_MAX_TOPIC - len(DEAD_TOPIC_SUFFIX)} letters, digits, . _ or -",
    ),
    "node name?": StringKind(
        lambda string: not string or bool(_NODE_NAME.fullmatch(string)),
        'at most 63 letters, digits, . _ or -, or ""',
    ),
    "path": StringKind(
        lambda string: not _CONTROL.search(string), "a path without control characters"
    ),
    "database host": StringKind(
        _is_database_host,
        'a host name or IP address without a port, such as "db.example.com", or a directory such as'
        ' "/run/postgresql"',
    ),
    "plain": StringKind(
        lambda string: not _CONTROL.search(string), "a string without control characters"
    ),
    "field": StringKind(
        _is_field, 'non-empty names separated by dots, such as "properties.products.price"'
    ),
    "secret": StringKind(
        lambda string: not _CONTROL.search(string), "a string without control characters"
    ),
    # RFC 7617 section 2: the first colon ends the user name.
    "username": StringKind(
        lambda string: ":" not in string and not _CONTROL.search(string),
        "a string without colons and control characters",
    ),
    "token": StringKind(
        lambda string: _VISIBLE_ASCII.fullmatch(string) is not None,
        "visible ASCII characters without spaces",
    ),
    "token?": StringKind(
        lambda string: not string or _VISIBLE_ASCII.fullmatch(string) is not None,
        'visible ASCII characters without spaces, or ""',
    ),
}
