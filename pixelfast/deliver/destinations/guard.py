"""Addresses that are never connected to, whatever name or URL leads there.

A URL comes from the settings, but what its name resolves to does not: whoever holds the name could
lead us to the metadata service of the cloud that we run in, which gives out credentials to anybody
who asks from the inside. So each address is looked at right before a socket is made for it.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["AddressRefused", "guarded_connector", "refusal"]

_NEVER = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, RFC 3927; metadata services of most clouds
        "fe80::/10",  # link-local, RFC 4291 section 2.5.6
        "fd00:ec2::254/128",  # the metadata service of EC2 over IPv6
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class AddressRefused(OSError):
    """The settings do not allow a connection to this address."""


def refusal(address: str, block_private: bool) -> str:
    """Say why an address is not connected to; "" where it may be.

    >>> refusal("::ffff:169.254.169.254", block_private=False)
    'a link-local or metadata address'
    >>> refusal("127.0.0.1", block_private=False), refusal("127.0.0.1", block_private=True)
    ('', 'a private or reserved address, and block_private is set')
    """
    for each in _meanings(ip_address(address)):
        if any(each in network for network in _NEVER):
            return "a link-local or metadata address"
        if block_private and (not each.is_global or each.is_multicast):
            return "a private or reserved address, and block_private is set"
    return ""


def _meanings(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address, or the IPv4 address that it stands for."""
    if isinstance(address, IPv4Address):
        return [address]
    inner = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inner = IPv4Address(address.packed[12:])
    return [inner] if inner is not None else [address]


class _GuardedResolver(AbstractResolver):
    """Leaves refused addresses out; a name that has no others is refused."""

    def __init__(self, block_private: bool) -> None:
        self._resolver = aiohttp.ThreadedResolver()
        self._block_private = block_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        reasons = {each["host"]: refusal(each["host"], self._block_private) for each in found}
        allowed = [each for each in found if not reasons[each["host"]]]
        if found and not allowed:
            address, reason = next(iter(reasons.items()))
            raise AddressRefused(f"{host} is {address}: {reason}")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def guarded_connector(block_private: bool, **options: Any) -> aiohttp.TCPConnector:
    """A connector that makes no socket for a refused address; `options` are aiohttp's.

    Addresses that stand in the URL itself are not resolved, so the sockets are guarded, too.

    Raises (out of a request, as the `os_error` of aiohttp's error):
        AddressRefused: naming host, address and reason.
    """

    def make_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = info
        if reason := refusal(place[0], block_private):
            raise AddressRefused(f"{place[0]}: {reason}")
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=_GuardedResolver(block_private), socket_factory=make_socket, **options
    )
