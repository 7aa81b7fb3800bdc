import asyncio
from collections.abc import Iterable
from typing import Any

from pixelfast.collect.answers import Answers
from pixelfast.collect.clock import Clock
from pixelfast.collect.sources import Sources
from pixelfast.spool import SpoolWriter

class Collector:
    """What all connections of one process share. Set `writer` before the first connection.

    Attributes:
        answered: answers by status.
        dropped_answers: answers to clients that had gone.
    """

    sources: Sources
    answers: Answers
    clock: Clock
    writer: SpoolWriter
    connections: set[Connection]
    is_draining: bool
    requests: int
    answered: dict[int, int]
    dropped_answers: int

    def __init__(
        self,
        sources: Sources,
        answers: Answers,
        clock: Clock,
        *,
        trusted_proxies: Iterable[str] = (),
        always_200: bool = False,
        max_connections: int = 20_000,
        header_timeout_s: float = 10.0,
        idle_timeout_s: float = 75.0,
    ) -> None: ...
    def connect(self) -> Connection:
        """A protocol for a new connection."""

    def tick(self, now_s: float) -> None:
        """Once a second: renew the Date header, end the connections whose time is up."""

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        """Answer the requests of one commit; what `SpoolWriter` calls."""

    def drain(self) -> None:
        """Make every answer the last of its connection; close those without a request."""

class Connection(asyncio.Protocol):
    """HTTP/1.1 on one connection, as asyncio's transports call it."""

    def __init__(self, shared: Collector) -> None: ...
