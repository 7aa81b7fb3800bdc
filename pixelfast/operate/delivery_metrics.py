"""The figures of destinations as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric

from pixelfast.operate.families import Samples, counter, duration_histogram, gauge

__all__ = ["STATES", "delivery_metrics", "known_destinations"]

# Of each destination, since it was registered, and always:
# stored + repeated - missing = delivered + dead + filtered + expired + pending.
_COUNTERS = (
    ("stored", "pixelfast_destination_stored_events", "Events stored since it was registered."),
    ("delivered", "pixelfast_delivered_events", "Events that the destination accepted."),
    ("filtered", "pixelfast_filtered_events", "Events that the destination does not take."),
    ("expired", "pixelfast_expired_events", "Events given up to make room."),
    ("missing", "pixelfast_missing_events", "Events that the disk no longer had."),
    ("repeated", "pixelfast_repeated_events", "Events that the spool held twice."),
    ("batches", "pixelfast_settled_batches", "Batches that are delivered or given up."),
    ("failures", "pixelfast_delivery_failures", "Failed delivery attempts."),
)
_GAUGES = (
    ("pending", "pixelfast_pending_events", "Events that are not delivered yet."),
    (
        "pending_bytes",
        "pixelfast_pending_bytes",
        "Bytes of the spool from the oldest event that is not delivered yet to the newest.",
    ),
    ("dead", "pixelfast_dead_events", "Dead letters, dropped ones with them."),
    ("under_way", "pixelfast_requests_under_way", "Requests under way."),
    ("concurrency", "pixelfast_request_concurrency", "Requests that may be under way at once."),
    (
        "lag_s",
        "pixelfast_delivery_lag_seconds",
        "Age of the oldest event that is not delivered yet; 0 if there is none.",
    ),
    ("archive_bytes", "pixelfast_archive_bytes", "Disk space that a file destination takes."),
    ("archive_files", "pixelfast_archive_files", "Files of a file destination."),
    (
        "archive_limit_bytes",
        "pixelfast_archive_limit_bytes",
        "Disk space that it may take now; above it the oldest files are deleted, or events wait.",
    ),
    (
        "last_success_s",
        "pixelfast_last_delivery_timestamp_seconds",
        "When the destination last accepted something, since 1970; absent until it does.",
    ),
)
# Of file destinations.
_ARCHIVE_COUNTERS = (
    (
        "archive_deleted_files",
        "pixelfast_archive_deleted_files",
        "Files of a file destination that were deleted to keep its bounds.",
    ),
    (
        "archive_deleted_bytes",
        "pixelfast_archive_deleted_bytes",
        "Bytes of the files that were deleted.",
    ),
)
# What is kept of them now; `pixelfast_dead_events` counts those that were dropped, too.
_OF_DEAD_LETTERS = (
    ("letters", "pixelfast_dead_letters", "Dead letters kept, by source."),
    ("size_bytes", "pixelfast_dead_letter_bytes", "Bytes of the dead letters kept."),
)
STATES = (
    "starting",
    "healthy",
    "backing_off",
    "waiting",
    "held",
    "disabled",
    "failing",
    "unusable",
)


# Of a process that is silent: they never become less, or stand on the disk.
_LASTING = (*(field for field, _, _ in _COUNTERS), "dead_letters")


def known_destinations(figures: dict[str, Any], *, is_silent: bool) -> dict[str, dict[str, Any]]:
    """Return what delivery reported last of each destination, as far as it still holds.

    A process that is silent may have stopped working after its last report.
    """
    destinations: dict[str, dict[str, Any]] = figures.get("destinations", {})
    if not is_silent:
        return destinations
    return {
        name: {"state": "unknown", **{each: own[each] for each in _LASTING if each in own}}
        for name, own in destinations.items()
    }


def delivery_metrics(
    figures: dict[str, Any],
    totals: dict[str, Any],
    *,
    is_silent: bool = False,
    clock: Callable[[], float] = time.time,
) -> Iterator[Metric]:
    """Yield the metrics of delivery: what is reported now, and what all runs have counted."""
    destinations = known_destinations(figures, is_silent=is_silent)
    label = ["destination"]
    for field, name, text in _COUNTERS:
        yield counter(name, text, label, _of_each(destinations, field))
    for field, name, text in _GAUGES:
        yield gauge(name, text, label, _of_each(destinations, field))
    yield gauge(
        "pixelfast_destination_state",
        "1 for the state that the destination is in, else 0; 0 for all while that is not known.",
        ["destination", "state"],
        (
            ([destination, state], own.get("state") == state)
            for destination, own in destinations.items()
            for state in STATES
        ),
    )
    attempts: dict[str, dict[str, Any]] = totals.get("attempts", {})
    yield counter(
        "pixelfast_delivery_attempts",
        "Delivery attempts, by result: accepted, partial (some events failed), rejected, retry "
        "(the destination or the network failed), held (a setting is wrong), waiting (no room).",
        ["destination", "result"],
        (
            ([destination, result], count)
            for destination, own in attempts.items()
            for result, count in own["results"].items()
        ),
    )
    yield duration_histogram(
        "pixelfast_delivery_attempt_duration_seconds",
        "Duration of delivery attempts, whatever their result.",
        label,
        (([destination], own["durations"]) for destination, own in attempts.items()),
    )
    archives: dict[str, dict[str, Any]] = totals.get("archives", {})
    for field, name, text in _ARCHIVE_COUNTERS:
        yield counter(name, text, label, _of_each(archives, field))
    yield from _of_dead_letters(destinations, clock)
    removed = totals.get("removed_segments")
    yield counter(
        "pixelfast_removed_segments",
        "Segments removed because every destination has read them.",
        [],
        [] if removed is None else [([], removed)],
    )


def _of_each(destinations: dict[str, dict[str, Any]], field: str) -> Samples:
    return (([name], own[field]) for name, own in destinations.items() if field in own)


def _of_dead_letters(
    destinations: dict[str, dict[str, Any]], clock: Callable[[], float]
) -> Iterator[Metric]:
    labels = ["destination", "source"]
    letters = [
        ([destination, source], own)
        for destination, figures in destinations.items()
        for source, own in figures.get("dead_letters", {}).items()
    ]
    for field, name, text in _OF_DEAD_LETTERS:
        yield gauge(name, text, labels, ((place, own[field]) for place, own in letters))

    def age_s(oldest_ms: int) -> float:
        return max(0.0, clock() - oldest_ms / 1000) if oldest_ms else 0.0

    yield gauge(
        "pixelfast_oldest_dead_letter_seconds",
        "Age of the oldest dead letter kept.",
        labels,
        ((place, age_s(own["oldest_ms"])) for place, own in letters),
    )
    yield counter(
        "pixelfast_dropped_dead_letters",
        "Dead letters dropped to keep max_dead_bytes and max_dead_age_s.",
        labels,
        ((place, own["dropped"]) for place, own in letters),
    )
