"""The figures of collectors as Prometheus metrics."""

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
        "Connections accepted, including those above server.max_connections.",
    ),
    (
        "evicted_connections",
        "pixelfast_evicted_connections",
        "Connections closed because of server.max_memory.",
    ),
    (
        "dropped_responses",
        "pixelfast_dropped_responses",
        "Responses not sent because the client had closed the connection.",
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
        'Events acknowledged with 200 and then not stored; only with ack = "received".',
    ),
    ("failed_commits", "pixelfast_failed_commits", "Commits whose write or sync failed."),
    (
        "replicated_frames",
        "pixelfast_replicated_frames",
        "Frames stored by the brokers of [cluster]; absent without it.",
    ),
    (
        "replicated_bytes",
        "pixelfast_replicated_bytes",
        "Bytes of frames stored by the brokers of [cluster]; absent without it.",
    ),
    (
        "replication_failures",
        "pixelfast_replication_failures",
        "Interruptions of replication after which it continued with a new connection.",
    ),
    (
        "replication_timeouts",
        "pixelfast_replication_timeouts",
        "Commits rejected because the brokers did not acknowledge them in time.",
    ),
)
_GAUGES = (
    ("open_connections", "pixelfast_open_connections", "Open connections."),
    (
        "max_connections",
        "pixelfast_max_connections",
        "Maximum number of open connections: server.max_connections, or less if the limit of open "
        "files is too low.",
    ),
    (
        "held_bytes",
        "pixelfast_connection_bytes",
        "Bytes of incomplete requests and unread responses, limited by server.max_memory.",
    ),
    ("waiting_bytes", "pixelfast_waiting_bytes", "Bytes of events that are waiting for the disk."),
    ("spool_bytes", "pixelfast_spool_bytes", "Disk space of the slot's segments in bytes."),
    (
        "spool_limit_bytes",
        "pixelfast_spool_limit_bytes",
        "Share of spool.max_bytes of the slot; above it, events are rejected or expire.",
    ),
    (
        "replication_backlog_s",
        "pixelfast_replication_backlog_seconds",
        "Age of the oldest event that is not replicated; absent without [cluster].",
    ),
    (
        "replication_in_flight_bytes",
        "pixelfast_replication_in_flight_bytes",
        "Bytes of frames that were sent to the brokers and are not acknowledged yet.",
    ),
    (
        "are_brokers_available",
        "pixelfast_brokers_available",
        "1 if the brokers of [cluster] acknowledge events, 0 if cluster.when_unavailable applies.",
    ),
)
_SOURCE_COUNTERS = (("accepted_events", "pixelfast_accepted_events", "Events accepted."),)
_REASON_COUNTERS = (
    ("rejected_requests", "pixelfast_rejected_requests", "Requests rejected, by reason."),
    ("warnings", "pixelfast_warnings", "Parameters omitted or corrected, by reason."),
)
_DURATIONS = (
    (
        "commit_durations",
        "pixelfast_commit_duration_seconds",
        "Duration of successful commits: write, sync, and the switch between threads.",
    ),
    ("sync_durations", "pixelfast_fsync_duration_seconds", "Duration of fdatasync."),
)


class OfSlot(NamedTuple):
    """The current figures of a slot's collector, and its totals since the start."""

    slot: str
    figures: dict[str, Any]
    totals: dict[str, Any]


def collector_metrics(slots: Sequence[OfSlot]) -> Iterator[Metric]:
    """Yield the metrics of collectors; unknown figures are omitted."""
    slot = ["slot"]
    for field, name, text in _COUNTERS:
        yield counter(name, text, slot, _of_each(slots, field))
    for field, name, text in _GAUGES:
        known = (each for each in slots if field in each.figures)
        yield gauge(name, text, slot, (([each.slot], each.figures[field]) for each in known))
    expires_s = [at for each in slots if (at := each.figures.get("tls_certificate_expires_s"))]
    yield gauge(
        "pixelfast_tls_certificate_expiry_timestamp_seconds",
        "Time when the certificate of server.tls expires, since 1970; absent without TLS.",
        [],
        [([], min(expires_s))] if expires_s else [],
    )
    yield counter(
        "pixelfast_responses",
        "Responses sent, by status.",
        ["slot", "status"],
        _of_each(slots, "responses", depth=1),
    )
    yield counter(
        "pixelfast_acknowledged_commits",
        "Commits acknowledged with [cluster], by what acknowledged them: the brokers (replicated) "
        "or the local disk (spooled).",
        ["slot", "by"],
        _of_each(slots, "acknowledged_commits", depth=1),
    )
    yield duration_histogram(
        "pixelfast_response_duration_seconds",
        "Time from reading a complete request to writing its response, by status class. One "
        "request in 16 is measured; _count is the number of measured requests.",
        ["slot", "status_class"],
        _of_each(slots, "response_durations", depth=1),
    )
    for field, name, text in _SOURCE_COUNTERS:
        yield counter(name, text, ["slot", "source"], _of_each(slots, field, depth=1))
    for field, name, text in _REASON_COUNTERS:
        yield counter(name, text, ["slot", "source", "reason"], _of_each(slots, field, depth=2))
    yield counter(
        "pixelfast_untemplated_events",
        "Events written without a template, by reason: the shape is new, no template can represent "
        "the shape, or a template cannot write a value.",
        ["slot", "reason"],
        _of_each(slots, "untemplated_events", depth=1),
    )
    for field, name, text in _DURATIONS:
        yield duration_histogram(name, text, slot, _of_each(slots, field))
    yield count_histogram(
        "pixelfast_commit_events",
        "Number of events in successful commits.",
        slot,
        _of_each(slots, "commit_events"),
    )


def _of_each(
    slots: Sequence[OfSlot], field: str, *, depth: int = 0
) -> Iterator[tuple[list[str], Any]]:
    """Yield the samples of a total that has `depth` labels in addition to the slot."""
    for each in slots:
        if field in each.totals:
            yield from _leaves([each.slot], each.totals[field], depth)


def _leaves(labels: list[str], value: Any, depth: int) -> Iterator[tuple[list[str], Any]]:
    if depth == 0:
        yield labels, value
        return
    for label, below in value.items():
        yield from _leaves([*labels, label], below, depth - 1)
