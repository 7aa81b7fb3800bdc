"""The collectors' figures as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from pixelfast.operate.families import count_histogram, counter, duration_histogram, gauge

__all__ = ["OfSlot", "collector_metrics"]

_COUNTERS = (
    (
        "accepted_connections",
        "pixelfast_accepted_connections",
        "Connections accepted, those over server.max_connections with them.",
    ),
    (
        "evicted_connections",
        "pixelfast_evicted_connections",
        "Connections closed to keep server.max_memory.",
    ),
    (
        "dropped_responses",
        "pixelfast_dropped_responses",
        "Responses that were not sent because the client had gone.",
    ),
    (
        "tls_handshake_failures",
        "pixelfast_tls_handshake_failures",
        "TLS handshakes that failed or took longer than server.header_timeout_s.",
    ),
    ("stored_events", "pixelfast_stored_events", "Events stored in the spool."),
    ("stored_bytes", "pixelfast_stored_bytes", "Bytes of frames written to the spool."),
    (
        "lost_events",
        "pixelfast_lost_events",
        'Events that were answered with 200 and then not stored; only with ack = "received".',
    ),
    ("failed_commits", "pixelfast_failed_commits", "Commits that failed to write or sync."),
)
_GAUGES = (
    ("open_connections", "pixelfast_open_connections", "Open connections."),
    (
        "max_connections",
        "pixelfast_max_connections",
        "Limit of open connections: server.max_connections, or fewer if too few files may be open.",
    ),
    (
        "held_bytes",
        "pixelfast_connection_bytes",
        "Bytes of incomplete requests and unread responses; server.max_memory bounds them.",
    ),
    ("waiting_bytes", "pixelfast_waiting_bytes", "Bytes of events that wait for the disk."),
    ("spool_bytes", "pixelfast_spool_bytes", "Bytes that the slot's segments take on the disk."),
    (
        "spool_limit_bytes",
        "pixelfast_spool_limit_bytes",
        "The slot's part of spool.max_bytes; over it events are rejected or expire.",
    ),
)
_SOURCE_COUNTERS = (("accepted_events", "pixelfast_accepted_events", "Events accepted."),)
_REASON_COUNTERS = (
    ("rejected_requests", "pixelfast_rejected_requests", "Requests rejected."),
    ("warnings", "pixelfast_warnings", "Parameters that were left out or corrected."),
)
_DURATIONS = (
    (
        "commit_durations",
        "pixelfast_commit_duration_seconds",
        "Duration of commits that succeeded: write and sync, and the change of threads.",
    ),
    ("sync_durations", "pixelfast_fsync_duration_seconds", "Duration of fdatasync alone."),
)


class OfSlot(NamedTuple):
    """What is known of a slot's collector: its present figures, and its totals since the start."""

    slot: str
    figures: dict[str, Any]
    totals: dict[str, Any]


def collector_metrics(slots: Sequence[OfSlot]) -> Iterator[Metric]:
    """Yield the metrics of collectors; a figure that is missing is not known and left out."""
    slot = ["slot"]
    for field, name, text in _COUNTERS:
        yield counter(name, text, slot, _of_each(slots, field))
    for field, name, text in _GAUGES:
        known = (each for each in slots if field in each.figures)
        yield gauge(name, text, slot, (([each.slot], each.figures[field]) for each in known))
    expires_s = [at for each in slots if (at := each.figures.get("tls_certificate_expires_s"))]
    yield gauge(
        "pixelfast_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of server.tls expires, since 1970; absent without one.",
        [],
        [([], min(expires_s))] if expires_s else [],
    )
    yield counter(
        "pixelfast_responses",
        "Responses, by status.",
        ["slot", "status"],
        _of_each(slots, "responses", depth=1),
    )
    yield duration_histogram(
        "pixelfast_response_duration_seconds",
        "Time from a completely read request to its response being written, by class of status. "
        "One request in 16 is measured; _count is the number of those.",
        ["slot", "status_class"],
        _of_each(slots, "response_durations", depth=1),
    )
    for field, name, text in _SOURCE_COUNTERS:
        yield counter(name, text, ["slot", "source"], _of_each(slots, field, depth=1))
    for field, name, text in _REASON_COUNTERS:
        yield counter(name, text, ["slot", "source", "reason"], _of_each(slots, field, depth=2))
    for field, name, text in _DURATIONS:
        yield duration_histogram(name, text, slot, _of_each(slots, field))
    yield count_histogram(
        "pixelfast_commit_events",
        "Events of each commit that succeeded.",
        slot,
        _of_each(slots, "commit_events"),
    )


def _of_each(
    slots: Sequence[OfSlot], field: str, *, depth: int = 0
) -> Iterator[tuple[list[str], Any]]:
    """Yield the samples of a total; `depth`: how many labels beside the slot it has."""
    for each in slots:
        if field in each.totals:
            yield from _leaves([each.slot], each.totals[field], depth)


def _leaves(labels: list[str], value: Any, depth: int) -> Iterator[tuple[list[str], Any]]:
    if depth == 0:
        yield labels, value
        return
    for label, below in value.items():
        yield from _leaves([*labels, label], below, depth - 1)
