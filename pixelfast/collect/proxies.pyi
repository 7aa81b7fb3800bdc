from collections.abc import Iterable

class TrustedProxies:
    """The networks whose word on a client's address counts.

    >>> proxies = TrustedProxies(["127.0.0.1/32", "10.0.0.0/8"])
    >>> proxies.trusts("10.1.2.3"), proxies.trusts("192.0.2.1")
    (True, False)
    >>> proxies.client_address("127.0.0.1", b"198.51.100.9, 203.0.113.7, 10.1.2.3", None)
    '203.0.113.7'
    """

    def __init__(self, networks: Iterable[str] = ()) -> None: ...
    def trusts(self, address: str) -> bool: ...
    def client_address(self, peer: str, forwarded_for: bytes | None, real_ip: bytes | None) -> str:
        """The client of a request whose peer is trusted.

        The right-most address of X-Forwarded-For that is not trusted; if all are, the left-most.
        X-Real-IP counts where there is no X-Forwarded-For. What is no address ends the walk. Ports
        are left off. The peer itself where nothing can be read.
        """
