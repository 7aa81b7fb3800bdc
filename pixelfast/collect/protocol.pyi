import asyncio
from typing import Any

from pixelfast.collect.collector import Collector

class Connections:
    """All open connections of one collector process.

    Args:
        collector: answers their requests.
        max_connections: over it a connection is answered 503 and closed.
        max_memory: bytes of incomplete requests and unread responses; over it the connections
            that have waited longest are closed.
        header_timeout_s: how long a request may take from its first byte to its last.
        idle_timeout_s: how long a connection may go without one.

    Attributes:
        requests: requests read, refused ones with them.
        answered: answers by status.
        dropped_answers: answers to clients that had gone.
        held_bytes: bytes of incomplete requests and unread responses now.
        evicted: connections closed for `max_memory`.
    """

    collector: Collector
    open: set[Connection]
    is_draining: bool
    requests: int
    answered: dict[int, int]
    dropped_answers: int
    held_bytes: int
    evicted: int

    def __init__(
        self,
        collector: Collector,
        *,
        max_connections: int = 20_000,
        max_memory: int = ...,
        header_timeout_s: float = 10.0,
        idle_timeout_s: float = 75.0,
    ) -> None: ...
    def connect(self) -> Connection:
        """A protocol for a new connection: the factory that the loop's servers call."""

    def sweep(self) -> None:
        """End the connections whose time is up; to be called about once a second."""

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        """Answer the requests of one commit; what `SpoolWriter` calls."""

    def drain(self) -> None:
        """Make every answer the last of its connection; close those without a request."""

class Connection(asyncio.Protocol):
    """HTTP/1.1 on one connection, as asyncio's transports call it."""

    def __init__(self, connections: Connections) -> None: ...
