"""The observer of a cluster: sends to several collectors, and is two destinations.

Some events are bad: the first destination rejects every batch with one of them.
"""

from __future__ import annotations

import time
from datetime import datetime
from itertools import count
from typing import Any

from tests.fake_destination import FakeResponse, Request
from tests.reliability.oracle import Ledger, Oracle, Pixels

__all__ = ["MAIN", "OTHER", "ClusterOracle", "is_bad"]

MAIN, OTHER = "/hook", "/other"
_BAD_EVERY = 499


class _SpreadPixels(Pixels):
    """Pixels whose connections go to several ports in turn, as a load balancer sends them."""

    def __init__(self, oracle: Oracle, **options: Any) -> None:
        super().__init__(oracle, **options)
        self.ports: tuple[int, ...] = ()
        self._turns = count()

    def next_port(self) -> int:
        ports = self.ports
        if not ports:
            raise ConnectionRefusedError
        return ports[next(self._turns) % len(ports)]


class ClusterOracle(Oracle):
    """An oracle with two destinations.

    Attributes:
        other: the events of the second destination, which accepts everything.
        longest_s: by path, the longest time from the receipt of an event to its first delivery.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pixels: _SpreadPixels = _SpreadPixels(self, **options)
        self.other = Ledger(self.run)
        self.longest_s = {MAIN: 0.0, OTHER: 0.0}

    def aim_at(self, *ports: int) -> None:
        """Send to these ports in turn, from the next connection on."""
        self.pixels.ports = ports

    @property
    def base_url(self) -> str:
        """The URL of the destinations without their paths."""
        return self.url.removesuffix(MAIN)

    def _respond(self, request: Request) -> FakeResponse:
        self._destination.requests.clear()
        if request.path == OTHER:
            self._take(request, self.other)
            return FakeResponse()
        if any(is_bad(event["properties"]["number"]) for event in request.events()):
            return FakeResponse(400, body=b"bad event")
        self._take(request, self.ledger)
        return FakeResponse()

    def _take(self, request: Request, ledger: Ledger) -> None:
        now_s = time.time()
        for event in request.events():
            before = ledger.twice
            number = ledger.take(event, self.sent)
            if number is None or ledger.twice > before:
                continue
            received_s = datetime.fromisoformat(event["receivedAt"]).timestamp()
            self.longest_s[request.path] = max(self.longest_s[request.path], now_s - received_s)
            if ledger is self.ledger:
                self.pending.discard(number)

    def expect(self, number: int) -> None:
        if not is_bad(number):
            super().expect(number)


def is_bad(number: int) -> bool:
    """Whether the first destination rejects the event with this number."""
    return number % _BAD_EVERY == 0
