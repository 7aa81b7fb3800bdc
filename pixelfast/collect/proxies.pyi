from collections.abc import Iterable
from typing import Self

__all__ = ["TrustedProxies"]

class TrustedProxies:
    """The networks whose proxy headers are believed; "unix:": the peers of Unix sockets.

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
        """Return whether a peer is a trusted proxy; its address may have a port."""

    def client_address(self, peer: str, forwarded_for: bytes | None, real_ip: bytes | None) -> str:
        """Return the address of the client of a request whose peer is trusted.

        That is the right-most address of X-Forwarded-For that is not trusted, or the left-most if
        all are. X-Real-IP counts if there is no X-Forwarded-For. An item that is not an address
        ends the search. Ports are left off. The peer if no address can be read.
        """
