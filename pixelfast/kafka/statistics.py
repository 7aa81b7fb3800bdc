"""Figures of the brokers and of the queue, from the statistics of librdkafka.

Source: librdkafka's STATISTICS.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Statistics"]


class _Window(msgspec.Struct):
    avg: int = 0  # µs


class _Broker(msgspec.Struct):
    nodeid: int = -1
    nodename: str = ""
    rtt: _Window = msgspec.field(default_factory=_Window)
    txretries: int = 0
    outbuf_msg_cnt: int = 0
    waitresp_msg_cnt: int = 0


class _Report(msgspec.Struct):
    name: str = ""
    msg_cnt: int = 0
    msg_size: int = 0
    brokers: dict[str, _Broker] = {}


class Statistics:
    """Keep the last statistics of a client.

    `count_retries` is called with a broker and the number of requests that were sent to it again.
    """

    def __init__(self, count_retries: Callable[[str, int], None]) -> None:
        self._count_retries = count_retries
        self._decoder = msgspec.json.Decoder(_Report)
        self._retries_before: dict[str, int] = {}
        self._round_trips_s: dict[str, float] = {}
        self._report = _Report()

    def read(self, report: str) -> None:
        """Read a report of librdkafka; ignore one that has another form."""
        try:
            self._report = self._decoder.decode(report)
        except msgspec.DecodeError:  # `poll` would raise it, and nothing else would be reported
            return
        for broker in _known(self._report):
            name = broker.nodename
            before = self._retries_before.get(name, 0)
            if broker.txretries != before:
                # A new client counts from 0.
                new = broker.txretries - before if broker.txretries > before else broker.txretries
                self._count_retries(name, new)
                self._retries_before[name] = broker.txretries
            if broker.rtt.avg:  # 0 if there was no request
                self._round_trips_s[name] = broker.rtt.avg / 1e6

    def forget(self) -> None:
        """Forget everything, because the client has ended."""
        self._report = _Report()
        self._round_trips_s.clear()
        self._retries_before.clear()

    def figures(self) -> dict[str, Any]:
        """Return the figures of the queue and of each broker; empty before the first report."""
        report = self._report
        if not report.name:
            return {}
        return {
            "kafka_queued_messages": report.msg_cnt,
            "kafka_queued_bytes": report.msg_size,
            "kafka_brokers": self.brokers(),
        }

    def brokers(self) -> dict[str, dict[str, float]]:
        """Return the figures of each broker by its address; empty before the first report."""
        found: dict[str, dict[str, float]] = {}
        for broker in _known(self._report):
            queued = broker.outbuf_msg_cnt + broker.waitresp_msg_cnt
            own = found[broker.nodename] = {"queued_messages": queued}
            # A consumer calls `read` in its own thread, so the round trip may not be stored yet.
            if round_trip_s := self._round_trips_s.get(broker.nodename):
                own["round_trip_s"] = round_trip_s
        return found


def _known(report: _Report) -> list[_Broker]:
    """Return the brokers of the cluster, without the addresses that they were learned from."""
    return [each for each in report.brokers.values() if each.nodeid >= 0 and each.nodename]
