"""Counting the delivery attempts of one destination."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

from pixelfast.deliver.outcomes import (
    Accepted,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
    Waiting,
    accepts,
)
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool.histograms import DurationHistogram, HistogramFigures

__all__ = ["Attempts"]

_RESULTS: dict[type, str] = {
    Accepted: "accepted",
    Partial: "partial",
    Rejected: "rejected",
    Retry: "retry",
    Held: "held",
    Waiting: "waiting",
}


class _Figures(TypedDict):
    """Attributes: attempts by result; their durations in seconds; retried requests by broker."""

    results: dict[str, int]
    durations: HistogramFigures
    broker_retries: dict[str, int]


class Attempts:
    """Count attempts, including probes, by result, and measure how long they take.

    Attributes:
        last_success_s: when an event was last accepted, in seconds since 1970; 0 if never.

    >>> attempts = Attempts(DeliveryClock(monotonic_s=lambda: 7.5, wall_s=lambda: 1e9))
    >>> attempts.count(Accepted(), events=3, began_s=7.0)
    >>> attempts.last_success_s, attempts.figures()["durations"]["sum"]
    (1000000000.0, 0.5)
    """

    def __init__(self, clock: DeliveryClock) -> None:
        self.last_success_s = 0.0
        self._clock = clock
        self._results = dict.fromkeys(_RESULTS.values(), 0)
        self._durations = DurationHistogram()
        self._broker_retries: Counter[str] = Counter()

    def began_s(self) -> float:
        """Return the time at which an attempt begins now, by the monotonic clock."""
        return self._clock.monotonic_s()

    def count(self, outcome: Outcome, events: int, began_s: float) -> None:
        """Count an attempt to send a batch of `events` events that began at `began_s`."""
        self._results[_RESULTS[type(outcome)]] += 1
        self._durations.add(self._clock.monotonic_s() - began_s)
        if accepts(outcome, events):
            self.last_success_s = self._clock.wall_s()

    def count_retries(self, broker: str, requests: int) -> None:
        """Count requests that a client library sent to a broker again, within an attempt."""
        self._broker_retries[broker] += requests

    def figures(self) -> _Figures:
        """Return the counts."""
        return {
            "results": dict(self._results),
            "durations": self._durations.figures(),
            "broker_retries": dict(self._broker_retries),
        }
