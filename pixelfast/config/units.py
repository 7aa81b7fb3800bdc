"""Sizes and addresses as a settings file contains them."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "ADDRESS_ALLOWED",
    "SIZE_ALLOWED",
    "Address",
    "format_bytes",
    "parse_address",
    "parse_bytes",
]

_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
SIZE_ALLOWED = 'a number of bytes or a string such as "64MiB" (units B kB MB GB TB KiB MiB GiB TiB)'
ADDRESS_ALLOWED = '"HOST:PORT", "[IPV6]:PORT" or "unix:/PATH", with a port from 0 to 65535'


def parse_bytes(text: str) -> int:
    """Parse a size into bytes. IEC units are powers of 1,024, SI units powers of 1,000.

    >>> parse_bytes("20GiB"), parse_bytes("1.9MB"), parse_bytes("512")
    (21474836480, 1900000, 512)

    Raises:
        ValueError: the string is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(text)
    if "." not in match[1]:
        return int(match[1]) * _UNITS[match[2]]
    size = float(match[1]) * _UNITS[match[2]]
    if size == float("inf"):
        raise ValueError(text)
    return int(size)


def format_bytes(size: int) -> str:
    """Format a size in the largest unit that represents it exactly.

    >>> format_bytes(21474836480), format_bytes(1900000), format_bytes(1000001)
    ('20GiB', '1900kB', '1000001B')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB", "GB", "MB", "kB"):
        count, rest = divmod(size, _UNITS[unit])
        if count and not rest:
            return f"{count}{unit}"
    return f"{size}B"


class Address(NamedTuple):
    """An address to listen at: `path` of a Unix socket, or `host` and `port`."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse an address to listen at.

    >>> parse_address("127.0.0.1:8080")
    Address(host='127.0.0.1', port=8080, path='')
    >>> str(parse_address("[::1]:80")), parse_address("unix:/run/pixel.sock").path
    ('[::1]:80', '/run/pixel.sock')

    Raises:
        ValueError: the string is not an address.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(text)
        return Address("", 0, path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    return Address(host, int(port))
