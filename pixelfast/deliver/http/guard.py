"""Addresses to which pixelfast never connects, by any name or URL.

A URL comes from the settings, but the addresses of its host name do not. The owner of the name
could direct connections to the metadata service of a cloud provider, which gives credentials to
every client inside a virtual machine. So each address is checked before a socket is created.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["AddressBlocked", "blocked_reason", "guarded_connector"]

_NEVER = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, RFC 3927; metadata services of most clouds
        "fe80::/10",  # link-local, RFC 4291 section 2.5.6; metadata service of OpenStack
        # Metadata services at other addresses. Source: the provider's documentation, or
        # cloud-init's data source for the provider where noted.
        "100.100.100.200/32",  # Alibaba Cloud ECS, "View instance metadata"
        "168.63.129.16/32",  # Azure, "What is IP address 168.63.129.16?" (WireServer)
        "192.0.0.192/32",  # Oracle Cloud at Customer, "Retrieve Predefined Instance Metadata"
        "fd00:ec2::254/128",  # EC2, "Use the Instance Metadata Service"
        "fd00:ec2::23/128",  # EKS, "How EKS Pod Identity works": gives out credentials
        "fd20:ce::254/128",  # Google Cloud, "Access VM metadata", of VMs with IPv6 only
        "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud Infrastructure (cloud-init)
        "fd00:42::42/128",  # Scaleway (cloud-init)
        "fd00:a9fe:a9fe::1/128",  # Akamai, formerly Linode (cloud-init)
        "fd00:100::100:200/128",  # Alibaba Cloud ECS over IPv6 (lists of others, undocumented)
    )
)

# IPv6 networks that embed an IPv4 address, and the octet at which it begins. RFC 6052 section 2.2
# skips octet 8, so with its longer prefixes the IPv4 address is in two pieces.
_CARRIERS = (
    (ip_network("::ffff:0:0/96"), 12),  # IPv4-mapped, RFC 4291 section 2.5.5.2
    (ip_network("::/96"), 12),  # IPv4-compatible, RFC 4291 section 2.5.5.1
    (ip_network("::ffff:0:0:0/96"), 12),  # IPv4-translated, RFC 2765 section 2.1
    (ip_network("2002::/16"), 2),  # 6to4, RFC 3056
    (ip_network("64:ff9b::/96"), 12),  # NAT64, RFC 6052
    (ip_network("64:ff9b:1::/48"), 12),  # NAT64 of a local network, RFC 8215: of any length
    (ip_network("64:ff9b:1::/48"), 9),
    (ip_network("64:ff9b:1::/48"), 7),
    (ip_network("64:ff9b:1::/48"), 6),
    (ip_network("2001::/32"), 4),  # Teredo, RFC 4380 section 4: the server's
)
_TEREDO = ip_network("2001::/32")
_IPV4_ITSELF = tuple(network for network, _ in _CARRIERS[:3])
_ISATAP = {bytes.fromhex("00005efe"), bytes.fromhex("02005efe")}  # RFC 5214 section 6.1

# Data that arrives between two turns of the loop is read at once. In records of one byte, TLS takes
# 20 ms for 64 KiB (Linux doubles the value).
_RECEIVE_BYTES = 32768


class AddressBlocked(OSError):
    """The settings do not allow a connection to this address."""


def blocked_reason(address: str, block_private: bool) -> str:
    """Return why connections to an address are not allowed, or "" if they are.

    >>> blocked_reason("::ffff:169.254.169.254", block_private=False)
    'a link-local or metadata address'
    >>> blocked_reason("127.0.0.1", block_private=True)
    'a private or reserved address, and block_private is set'
    """
    meanings = _meanings(ip_address(address))
    if any(each in network for network in _NEVER for each in meanings):
        return "a link-local or metadata address"
    if block_private and any(not each.is_global or each.is_multicast for each in meanings):
        return "a private or reserved address, and block_private is set"
    return ""


def _meanings(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the IPv4 addresses that an address embeds, and itself if it may be used as such."""
    if isinstance(address, IPv4Address):
        return [address]
    packed = address.packed
    plain = IPv6Address(packed)  # without its zone
    if int(plain) <= 1:  # :: and ::1 are in ::/96 but embed no IPv4 address
        return [plain]
    found: list[IPv4Address | IPv6Address]
    found = [_ipv4_at(packed, octet) for network, octet in _CARRIERS if plain in network]
    if plain in _TEREDO:
        found.append(IPv4Address(bytes(octet ^ 0xFF for octet in packed[12:])))  # the client's
    if packed[8:12] in _ISATAP:
        found.append(_ipv4_at(packed, 12))
    is_ipv4_itself = any(plain in network for network in _IPV4_ITSELF)
    return found if is_ipv4_itself else [plain, *found]


def _ipv4_at(packed: bytes, octet: int) -> IPv4Address:
    octets = packed[octet:8] + packed[9:] if octet < 8 else packed[octet:]
    return IPv4Address(octets[:4])


class _GuardedResolver(AbstractResolver):
    """Resolve names without blocked addresses; raise AddressBlocked if all of them are."""

    def __init__(self, block_private: bool) -> None:
        self._resolver = aiohttp.ThreadedResolver()
        self._block_private = block_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        reasons = {
            each["host"]: blocked_reason(each["host"], self._block_private) for each in found
        }
        allowed = [each for each in found if not reasons[each["host"]]]
        if found and not allowed:
            address, reason = next(iter(reasons.items()))
            raise AddressBlocked(f"{host} is {address}: {reason}")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def guarded_connector(block_private: bool, **options: Any) -> aiohttp.TCPConnector:
    """Return a connector that creates no socket for a blocked address; `options` are aiohttp's.

    An address in the URL itself is not resolved, so it is also checked when a socket is created.

    Requests then raise an error whose `os_error` is an AddressBlocked with host, address and
    reason.
    """

    def make_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = info
        if reason := blocked_reason(place[0], block_private):
            raise AddressBlocked(f"{place[0]}: {reason}")
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        return made

    return aiohttp.TCPConnector(
        resolver=_GuardedResolver(block_private), socket_factory=make_socket, **options
    )
