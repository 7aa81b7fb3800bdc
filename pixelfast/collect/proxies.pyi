from collections.abc import Iterable
from typing import Self

__all__ = ["TrustedProxies"]

class TrustedProxies:
    """Decide which peers are trusted proxies, and find the addresses of their clients.

    Args:
        networks: networks in CIDR notation; "unix:" stands for the peers of Unix sockets.

    Raises:
        ValueError: a network is invalid.

    >>> proxies = TrustedProxies(["127.0.0.1/32", "10.0.0.0/8"])
    >>> proxies.trusts("10.1.2.3"), proxies.trusts("192.0.2.1")
    (True, False)
    >>> proxies.client_address("127.0.0.1", b"198.51.100.9, 203.0.113.7, 10.1.2.3", None)
    '203.0.113.7'
    """

    def __new__(cls, networks: Iterable[str] = ()) -> Self: ...
    @property
    def trusts_unix(self) -> bool: ...
    def trusts(self, address: str) -> bool:
        """Return whether the peer with this address, with an optional port, is a trusted proxy."""

    def client_address(self, peer: str, forwarded_for: bytes | None, real_ip: bytes | None) -> str:
        """Return the address of the client of a request from a trusted peer.

        This is the rightmost address in X-Forwarded-For that is not trusted, or the leftmost
        address if all are trusted. X-Real-IP is used if X-Forwarded-For is missing or empty. An
        element that is not an address ends the search. Ports are removed. If no address is found,
        the result is `peer`.
        """
