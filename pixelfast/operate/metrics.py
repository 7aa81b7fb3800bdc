"""The processes' figures as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["exposition"]


class _Processes(Protocol):
    collectors: list[Any]
    delivery: Any
    started_s: float

    @property
    def children(self) -> list[Any]: ...


def exposition(processes: _Processes) -> bytes:
    """All metrics in the text format of Prometheus, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FromFigures(processes))
    return generate_latest(registry)


class _FromFigures(Collector):
    def __init__(self, processes: _Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        processes = self._processes
        uptime = GaugeMetricFamily("pixelfast_uptime_seconds", "Since the supervisor started.")
        uptime.add_metric([], time.time() - processes.started_s)
        yield uptime
        starts = CounterMetricFamily(
            "pixelfast_process_starts", "Starts of a process.", labels=["process"]
        )
        reported = GaugeMetricFamily(
            "pixelfast_process_last_report_timestamp_seconds",
            "When a process reported last. A process reports every second.",
            labels=["process"],
        )
        for child in processes.children:
            starts.add_metric([child.name], child.starts)
            if child.reported_at_s:
                reported.add_metric([child.name], child.reported_at_s)
        yield from (starts, reported)
        yield from _of_collectors([child.figures for child in processes.collectors])
        yield from _of_certificate([child.figures for child in processes.collectors])
        delivery = processes.delivery
        yield from _of_delivery(delivery.figures, is_silent=delivery.is_silent)


_BY_SLOT = (
    ("stored_events", "pixelfast_stored_events", "Events stored in the spool."),
    ("stored_bytes", "pixelfast_stored_bytes", "Bytes of frames written to the spool."),
    ("lost_events", "pixelfast_lost_events", "Answered with ack = received, then not stored."),
    ("commits", "pixelfast_commits", "Group commits."),
    ("failed_commits", "pixelfast_failed_commits", "Group commits that failed."),
    ("commit_seconds", "pixelfast_commit_seconds", "Time that group commits took."),
    ("dropped_answers", "pixelfast_dropped_answers", "Answers to clients that had gone."),
    ("evicted", "pixelfast_evicted_connections", "Connections closed for server.max_memory."),
    (
        "tls_handshake_failures",
        "pixelfast_tls_handshake_failures",
        "TLS handshakes that failed or took longer than server.header_timeout_s.",
    ),
)
_GAUGES_BY_SLOT = (
    ("connections", "pixelfast_open_connections", "Open connections."),
    (
        "held_bytes",
        "pixelfast_connection_bytes",
        "Bytes of incomplete requests and unread responses; server.max_memory bounds them.",
    ),
    ("waiting_bytes", "pixelfast_waiting_bytes", "Events that wait for the disk."),
    ("spool_bytes", "pixelfast_spool_bytes", "What the slot's events take on the disk."),
)


def _of_collectors(all_figures: list[dict[str, Any]]) -> Iterator[Metric]:
    known = [figures for figures in all_figures if "slot" in figures]  # others are starting
    for field, name, text in _BY_SLOT:
        counter = CounterMetricFamily(name, text, labels=["slot"])
        for figures in known:
            counter.add_metric([str(figures["slot"])], figures[field])
        yield counter
    for field, name, text in _GAUGES_BY_SLOT:
        gauge = GaugeMetricFamily(name, text, labels=["slot"])
        for figures in known:
            gauge.add_metric([str(figures["slot"])], figures[field])
        yield gauge
    answers = CounterMetricFamily("pixelfast_answers", "Answers.", labels=["slot", "status"])
    accepted = CounterMetricFamily(
        "pixelfast_accepted_events", "Events taken.", labels=["slot", "source"]
    )
    reasons = ["slot", "source", "reason"]
    refused = CounterMetricFamily("pixelfast_refused_requests", "Requests refused.", labels=reasons)
    warned = CounterMetricFamily(
        "pixelfast_warnings", "Parameters left out or mended.", labels=reasons
    )
    for figures in known:
        slot = str(figures["slot"])
        for status, count in figures["answered"].items():
            answers.add_metric([slot, str(status)], count)
        for source, count in figures["accepted"].items():
            accepted.add_metric([slot, source], count)
        for family, field in ((refused, "refused"), (warned, "warned")):
            for source, by_reason in figures[field].items():
                for reason, count in by_reason.items():
                    family.add_metric([slot, source, reason], count)
    yield from (answers, accepted, refused, warned)


def _of_certificate(all_figures: list[dict[str, Any]]) -> Iterator[Metric]:
    expires_s = [each for own in all_figures if (each := own.get("tls_certificate_expires_s"))]
    gauge = GaugeMetricFamily(
        "pixelfast_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of server.tls expires; absent without one.",
    )
    if expires_s:
        gauge.add_metric([], min(expires_s))
    yield gauge


# Of each destination, since it was registered, and always:
# stored + repeated - missing = delivered + dead + filtered + expired + pending.
_BY_DESTINATION = (
    ("delivered", "pixelfast_delivered_events", "Events that the destination accepted."),
    ("filtered", "pixelfast_filtered_events", "Events that it does not take."),
    ("expired", "pixelfast_expired_events", "Events given up to make room."),
    ("missing", "pixelfast_missing_events", "Events that the disk no longer had."),
    ("repeated", "pixelfast_repeated_events", "Events that the spool held twice."),
    ("batches", "pixelfast_settled_batches", "Batches that came to their end."),
    ("failures", "pixelfast_delivery_failures", "Tries that failed."),
    # Of file destinations, since delivery started.
    ("archive_deleted_files", "pixelfast_archive_deleted_files", "Files deleted to keep bounds."),
    ("archive_deleted_bytes", "pixelfast_archive_deleted_bytes", "Bytes of the files deleted."),
)
_GAUGES_BY_DESTINATION = (
    ("stored", "pixelfast_destination_stored_events", "Events stored since it was registered."),
    ("pending", "pixelfast_pending_events", "Events that are not delivered yet."),
    ("dead", "pixelfast_dead_events", "Dead letters, dropped ones with them."),
    ("under_way", "pixelfast_requests_under_way", "Requests under way."),
    ("concurrency", "pixelfast_request_concurrency", "Requests that may be under way at once."),
    ("lag_s", "pixelfast_delivery_lag_seconds", "Age of the oldest event read, not delivered."),
    ("archive_bytes", "pixelfast_archive_bytes", "Disk space that a file destination takes."),
    ("archive_files", "pixelfast_archive_files", "Files of a file destination."),
    (
        "archive_limit_bytes",
        "pixelfast_archive_limit_bytes",
        "Disk space that it may take now; above it the oldest files are deleted, or events wait.",
    ),
)
# What is kept of them now; `pixelfast_dead_events` counts those that were dropped, too.
_OF_DEAD_LETTERS = (
    ("letters", "pixelfast_dead_letters", "Dead letters kept, by source."),
    ("size_bytes", "pixelfast_dead_letter_bytes", "Bytes of the dead letters kept."),
)
_STATES = ("starting", "closed", "open", "waiting", "held", "disabled", "failing", "unusable")


def _of_delivery(figures: dict[str, Any], *, is_silent: bool) -> Iterator[Metric]:
    """Of a process that is silent only what never becomes less: it is still true."""
    destinations = figures.get("destinations", {})
    for field, name, text in _BY_DESTINATION:
        counter = CounterMetricFamily(name, text, labels=["destination"])
        for destination, own in destinations.items():
            if field in own:  # what is not known is absent, and not 0
                counter.add_metric([destination], own[field])
        yield counter
    for field, name, text in _GAUGES_BY_DESTINATION:
        gauge = GaugeMetricFamily(name, text, labels=["destination"])
        for destination, own in destinations.items():
            if field in own and not is_silent:
                gauge.add_metric([destination], own[field])
        yield gauge
    states = GaugeMetricFamily(
        "pixelfast_destination_state",
        "1 for the state that the destination is in.",
        labels=["destination", "state"],
    )
    for destination, own in destinations.items():
        for state in _STATES:
            states.add_metric([destination, state], own.get("state") == state)
    yield states
    yield from _of_dead_letters(destinations)
    removed = CounterMetricFamily("pixelfast_removed_segments", "Segments removed once read.")
    removed.add_metric([], figures.get("removed_segments", 0))
    yield removed


def _of_dead_letters(destinations: dict[str, Any]) -> Iterator[Metric]:
    labels = ["destination", "source"]
    letters = [
        ([destination, source], own)
        for destination, figures in destinations.items()
        for source, own in figures.get("dead_letters", {}).items()
    ]
    for field, name, text in _OF_DEAD_LETTERS:
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for place, own in letters:
            gauge.add_metric(place, own[field])
        yield gauge
    ages = GaugeMetricFamily(
        "pixelfast_oldest_dead_letter_seconds", "Age of the oldest dead letter kept.", labels=labels
    )
    for place, own in letters:
        oldest_s = own["oldest_ms"] / 1000
        ages.add_metric(place, max(0.0, time.time() - oldest_s) if oldest_s else 0.0)
    yield ages
    dropped = CounterMetricFamily(
        "pixelfast_dropped_dead_letters", "Dead letters dropped to keep the bounds.", labels=labels
    )
    for place, own in letters:
        dropped.add_metric(place, own["dropped"])
    yield dropped
