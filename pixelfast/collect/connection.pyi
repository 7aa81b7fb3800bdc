import asyncio
import enum
from typing import Any

from pixelfast.collect.collector import Collector
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["MAX_OVER_LIMIT", "Connection", "Connections", "State", "check_transition"]

MAX_OVER_LIMIT: int
"""Connections over `max_connections` that may linger with their 503."""

class State(enum.IntEnum):
    """The states of a connection; `connection.pyx` begins with the table of transitions."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    LAST = 3
    HALF_CLOSED = 4
    LINGERING = 5
    CLOSED = 6

def check_transition(old: State, new: State) -> None:
    """Raise AssertionError if a connection may not go from one state to the other.

    >>> check_transition(State.IDLE, State.HEAD)
    >>> check_transition(State.CLOSED, State.IDLE)
    Traceback (most recent call last):
    AssertionError: no transition from CLOSED to IDLE
    """

class Connections:
    """All open connections of one collector process.

    Args:
        collector: responds to their requests.
        max_connections: over it a new connection is answered 503 and closed.
        max_memory: bytes of incomplete requests and unread responses; over it the connections
            that have waited longest are closed.
        header_timeout_s: longest time a request may take from its first byte to its last.
        idle_timeout_s: longest time a connection may wait for a request or for its peer to read.

    Attributes:
        is_draining: each response is the last of its connection; may be set before `drain`.
        handshakes: TLS connections that are not in `open` yet; they count for `max_connections`.
        requests: requests read, rejected ones included.
        answered: responses by status.
        dropped_responses: responses to clients that had gone.
        held_bytes: bytes of incomplete requests and unread responses now.
        evicted: connections closed for `max_memory`.
        accepted: connections accepted, those over `max_connections` with them.
    """

    def __init__(self, collector: Collector, **limits: float) -> None:
        """`limits` are those of `follow`."""

    def follow(
        self,
        *,
        max_connections: int = 20_000,
        max_memory: int = ...,
        header_timeout_s: float = 10.0,
        idle_timeout_s: float = 75.0,
    ) -> None:
        """Follow other limits, between two requests, and the proxies that the collector trusts."""

    handshakes: int
    @property
    def collector(self) -> Collector: ...
    @property
    def open(self) -> set[Connection]: ...
    is_draining: bool
    @property
    def requests(self) -> int: ...
    @property
    def answered(self) -> dict[int, int]: ...
    @property
    def dropped_responses(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    def durations(self) -> dict[str, HistogramFigures]:
        """Return histograms of responses by class of status ("2xx", "4xx", "5xx"), in seconds.

        A duration begins once the request was read and ends when its response is written. One
        request in 16 is measured.
        """

    def connect(self) -> Connection:
        """Return the protocol of a new connection; the servers of the loop call it."""

    def sweep(self) -> None:
        """End the connections whose time is up; to be called about once a second."""

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        """Send the responses that one commit makes ready; `SpoolWriter` calls it."""

    def drain(self) -> None:
        """Make each response the last of its connection; close those without a request."""

class Connection(asyncio.Protocol):
    """HTTP/1.1 on one connection, as asyncio's transports call it."""

    def __init__(self, connections: Connections) -> None: ...
    @property
    def state(self) -> State: ...
    def hold(self, sealed_bytes: int) -> None:
        """Count the bytes of an incomplete TLS record, which `max_memory` bounds, too."""
