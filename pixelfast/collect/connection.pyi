import asyncio
import enum
from typing import Any

from pixelfast.collect.collector import Collector
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["MAX_OVER_LIMIT", "Connection", "Connections", "State", "check_transition"]

MAX_OVER_LIMIT: int
"""Number of connections beyond `max_connections` that may linger after their 503."""

class State(enum.IntEnum):
    """Name the states of a connection; the table of transitions is in `connection.pyx`."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    LAST = 3
    HALF_CLOSED = 4
    LINGERING = 5
    CLOSED = 6

def check_transition(old: State, new: State) -> None:
    """Raise AssertionError if the transition is not legal.

    >>> check_transition(State.IDLE, State.HEAD)
    >>> check_transition(State.CLOSED, State.IDLE)
    Traceback (most recent call last):
    AssertionError: no transition from CLOSED to IDLE
    """

class Connections:
    """Manage all open connections of one collector process.

    Args:
        collector: responds to their requests.
        max_connections: maximum number of connections; further ones get a 503 and are closed.
        max_memory: maximum size of incomplete requests and unread responses, in bytes; beyond it
            the connections that have waited longest are closed.
        header_timeout_s: maximum time from the first byte of a request to its last.
        idle_timeout_s: maximum time a connection may wait for a request, or for its peer to read.

    Attributes:
        is_draining: whether each response is the last of its connection; may be set before `drain`.
        handshakes: number of TLS connections that are not in `open` yet; they count towards
            `max_connections`.
        requests: number of requests, including rejected ones.
        responses: number of responses by status.
        dropped_responses: number of responses to clients that had left.
        held_bytes: current size of incomplete requests and unread responses.
        evicted: number of connections closed because of `max_memory`.
        accepted: number of accepted connections, including those beyond `max_connections`.
    """

    def __init__(self, collector: Collector, **limits: float) -> None:
        """Take the limits of `follow`."""

    def follow(
        self,
        *,
        max_connections: int = 20_000,
        max_memory: int = ...,
        header_timeout_s: float = 10.0,
        idle_timeout_s: float = 75.0,
    ) -> None:
        """Apply new limits and the collector's trusted proxies, between two requests."""

    handshakes: int
    @property
    def collector(self) -> Collector: ...
    @property
    def open(self) -> set[Connection]: ...
    is_draining: bool
    @property
    def requests(self) -> int: ...
    @property
    def responses(self) -> dict[int, int]: ...
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
        """Return a histogram of durations in seconds for each class of status: 2xx, 4xx and 5xx.

        A duration begins when the request has been read and ends when its response is written. One
        request in 16 is measured.
        """

    def connect(self) -> Connection:
        """Return the protocol of a new connection, for `create_server` of the event loop."""

    def sweep(self) -> None:
        """Close connections that have reached a timeout. Call this about once per second."""

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        """Send the responses whose events one commit has stored, for `SpoolWriter`."""

    def drain(self) -> None:
        """Make each response the last of its connection, and close idle connections."""

class Connection(asyncio.Protocol):
    """Speak HTTP/1.1 on one connection, as a protocol for asyncio's transports."""

    def __init__(self, connections: Connections) -> None: ...
    @property
    def state(self) -> State: ...
    def hold(self, sealed_bytes: int) -> None:
        """Count the bytes of an incomplete TLS record towards `max_memory`."""
