"""The figures of the delivery processes as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, Protocol

from prometheus_client.core import Metric

from pixelfast.operate.families import Samples, counter, duration_histogram, gauge
from pixelfast.operate.totals import Totals, added

__all__ = ["STATES", "delivery_metrics", "delivery_totals", "known_destinations"]

# For each destination, since it was added, this always holds:
# stored + repeated - missing = delivered + dead + filtered + expired + pending.
_COUNTERS = (
    (
        "stored",
        "pixelfast_destination_stored_events",
        "Events stored since the destination was added.",
    ),
    ("delivered", "pixelfast_delivered_events", "Events that the destination accepted."),
    (
        "filtered",
        "pixelfast_filtered_events",
        "Events that the settings exclude from the destination.",
    ),
    ("expired", "pixelfast_expired_events", "Undelivered events that expired."),
    ("missing", "pixelfast_missing_events", "Events that were missing in the spool."),
    ("repeated", "pixelfast_repeated_events", "Events that occurred twice in the spool."),
    (
        "batches",
        "pixelfast_settled_batches",
        "Batches that are completed: every event is delivered or a dead letter.",
    ),
    ("failures", "pixelfast_delivery_failures", "Failed delivery attempts."),
    (
        "duplicate_frames",
        "pixelfast_duplicate_frames",
        "Messages of the topic of [cluster] that were dropped as copies of earlier ones.",
    ),
    (
        "invalid_messages",
        "pixelfast_invalid_messages",
        "Messages of the topic of [cluster] that were skipped, because they hold no valid frame.",
    ),
)
_DEAD = (
    "dead",
    "pixelfast_dead_events",
    "Events that became dead letters and were not delivered later, including dropped ones.",
)
_GAUGES = (
    ("pending", "pixelfast_pending_events", "Undelivered events."),
    (
        "unread",
        "pixelfast_unread_events",
        "Events in the topic of [cluster] that are neither stored nor pending here yet, because "
        "too many others are pending.",
    ),
    (
        "retention_s",
        "pixelfast_topic_retention_seconds",
        "Age at which the topic of [cluster] deletes events; absent if it is unlimited or unknown.",
    ),
    (
        "pending_bytes",
        "pixelfast_pending_bytes",
        "Bytes of the spool from the oldest undelivered event to the newest event.",
    ),
    ("under_way", "pixelfast_requests_under_way", "Requests in progress."),
    (
        "concurrency",
        "pixelfast_request_concurrency",
        "Current maximum number of concurrent requests.",
    ),
    (
        "lag_s",
        "pixelfast_delivery_lag_seconds",
        "Age of the oldest undelivered event; 0 if there is none.",
    ),
    ("archive_bytes", "pixelfast_archive_bytes", "Disk space of the files of a file destination."),
    ("archive_files", "pixelfast_archive_files", "Number of files of a file destination."),
    (
        "archive_limit_bytes",
        "pixelfast_archive_limit_bytes",
        "Maximum disk space of the files; above it, the oldest files are deleted or events wait.",
    ),
    (
        "last_success_s",
        "pixelfast_last_delivery_timestamp_seconds",
        "Time when the destination last accepted events, since 1970; absent before the first time.",
    ),
    (
        "kafka_queued_messages",
        "pixelfast_kafka_queued_messages",
        "Messages of a Kafka destination that are queued or under way.",
    ),
    (
        "kafka_queued_bytes",
        "pixelfast_kafka_queued_bytes",
        "Bytes of the messages of a Kafka destination that are queued or under way.",
    ),
)
# For destinations whose types have them.
_SENDER_COUNTERS = (
    (
        "archive_deleted_files",
        "pixelfast_archive_deleted_files",
        "Files deleted because of keep_for_s or keep_bytes.",
    ),
    (
        "archive_deleted_bytes",
        "pixelfast_archive_deleted_bytes",
        "Bytes of the deleted files.",
    ),
    ("stored_objects", "pixelfast_stored_objects", "Objects that an s3 destination stored."),
    ("stored_object_bytes", "pixelfast_stored_object_bytes", "Bytes of the stored objects."),
)
# For each broker of a Kafka destination.
_OF_BROKERS = (
    (
        "round_trip_s",
        "pixelfast_kafka_round_trip_seconds",
        "Average time from a request to the response of the broker, over 5 s.",
    ),
    (
        "queued_messages",
        "pixelfast_kafka_broker_messages",
        "Messages that are being sent to the broker or wait for its response.",
    ),
)
# Those that are kept now; `pixelfast_dead_events` includes those that were dropped.
_OF_DEAD_LETTERS = (
    ("letters", "pixelfast_dead_letters", "Dead letters that are kept."),
    ("size_bytes", "pixelfast_dead_letter_bytes", "Bytes of the dead letters that are kept."),
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

_UNKNOWN = {"state": "unknown"}

# Figures of a silent process that stay valid: totals, and figures that are stored on disk.
_LASTING = (*(field for field, _, _ in _COUNTERS), "dead_letters")


class _Process(Protocol):
    name: str
    orders: Any
    figures: dict[str, Any]
    totals: Totals

    @property
    def is_silent(self) -> bool: ...


def known_destinations(processes: Sequence[_Process]) -> dict[str, dict[str, Any]]:
    """Return the last reported figures of each destination, as far as they are still valid.

    A silent process may have stopped working after its last report. `process` is the name of the
    process that delivers to the destination.
    """
    found: dict[str, dict[str, Any]] = {}
    for process in processes:
        destinations = dict.fromkeys(process.orders.destinations or (), _UNKNOWN)
        destinations |= process.figures.get("destinations", {})
        for name, own in destinations.items():
            if process.is_silent:
                # Its partitions of a cluster get another owner, which reports their figures.
                is_lasting = "by_partition" not in own
                own = {each: own[each] for each in _LASTING if is_lasting and each in own}
                own |= _UNKNOWN
            found[name] = {**own, "process": process.name}
    return found


def delivery_totals(processes: Sequence[_Process]) -> dict[str, Any]:
    """Return the totals of all runs of all delivery processes."""
    totals: dict[str, Any] = reduce(added, (each.totals.value for each in processes), {})
    return totals


def delivery_metrics(
    processes: Sequence[_Process], *, clock: Callable[[], float] = time.time
) -> Iterator[Metric]:
    """Yield the metrics of delivery: the current figures, and the totals of all runs."""
    destinations = known_destinations(processes)
    totals = delivery_totals(processes)
    label = ["destination"]
    for field, name, text in _COUNTERS:
        yield _of_each_partition(counter, destinations, field, name, text)
    yield _of_each_partition(gauge, destinations, *_DEAD)
    for field, name, text in _GAUGES:
        yield gauge(name, text, label, _of_each(destinations, field))
    yield gauge(
        "pixelfast_destination_state",
        "1 for the current state of the destination, 0 for the others; 0 for all if it is unknown.",
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
        "(the destination or network failed), held (a setting is wrong), waiting (no disk space).",
        ["destination", "result"],
        (
            ([destination, result], count)
            for destination, own in attempts.items()
            for result, count in own["results"].items()
        ),
    )
    yield duration_histogram(
        "pixelfast_delivery_attempt_duration_seconds",
        "Duration of delivery attempts.",
        label,
        (([destination], own["durations"]) for destination, own in attempts.items()),
    )
    yield from _of_brokers(destinations, attempts)
    senders: dict[str, dict[str, Any]] = totals.get("senders", {})
    for field, name, text in _SENDER_COUNTERS:
        yield counter(name, text, label, _of_each(senders, field))
    yield from _of_dead_letters(destinations, clock)
    removed = totals.get("removed_segments")
    yield counter(
        "pixelfast_removed_segments",
        "Segments deleted because no destination needs them.",
        [],
        [] if removed is None else [([], removed)],
    )


def _of_each_partition(
    make: Callable[[str, str, Sequence[str], Samples], Metric],
    destinations: dict[str, dict[str, Any]],
    field: str,
    name: str,
    text: str,
) -> Metric:
    """Return a figure of each destination, or of each of its partitions of a cluster.

    A partition may move to another process, which continues its totals. The sum of those that a
    process has would decrease, which Prometheus takes for a restart from 0.
    """
    whole = {each: own for each, own in destinations.items() if "by_partition" not in own}
    family = make(name, text, ["destination"], _of_each(whole, field))
    suffix = "_total" if family.type == "counter" else ""
    for destination, figures in destinations.items():
        for partition, own in figures.get("by_partition", {}).items():
            labels = {"destination": destination, "partition": partition}
            family.add_sample(name + suffix, labels, own[field])
    return family


def _of_each(destinations: dict[str, dict[str, Any]], field: str) -> Samples:
    return (([name], own[field]) for name, own in destinations.items() if field in own)


def _of_brokers(
    destinations: dict[str, dict[str, Any]], attempts: dict[str, dict[str, Any]]
) -> Iterator[Metric]:
    labels = ["destination", "broker"]
    brokers = [
        ([destination, broker], own)
        for destination, figures in destinations.items()
        for broker, own in figures.get("kafka_brokers", {}).items()
    ]
    for field, name, text in _OF_BROKERS:
        known = ((place, own[field]) for place, own in brokers if field in own)
        yield gauge(name, text, labels, known)
    yield counter(
        "pixelfast_kafka_retries",
        "Requests that were sent to the broker again.",
        labels,
        (
            ([destination, broker], count)
            for destination, own in attempts.items()
            for broker, count in own.get("broker_retries", {}).items()
        ),
    )


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
        "Age of the oldest dead letter that is kept.",
        labels,
        ((place, age_s(own["oldest_ms"])) for place, own in letters),
    )
    yield counter(
        "pixelfast_dropped_dead_letters",
        "Dead letters deleted because of max_dead_bytes or max_dead_age_s.",
        labels,
        ((place, own["dropped"]) for place, own in letters),
    )
