"""The figures of the brokers of `[cluster]` as Prometheus metrics.

They are those of the connections of collectors, which have a slot, and of delivery processes, which
have a destination.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from pixelfast.operate.collector_metrics import OfSlot
from pixelfast.operate.families import Samples, counter, gauge

__all__ = ["cluster_metrics"]

_LABELS = ("slot", "destination", "broker")
_GAUGES = (
    (
        "round_trip_s",
        "pixelfast_cluster_round_trip_seconds",
        "Average time from a request to the response of a broker of [cluster], over 5 s. Of a "
        "destination, it includes the time for which the broker waits for new events.",
    ),
    (
        "queued_messages",
        "pixelfast_cluster_broker_requests",
        "Requests that are being sent to a broker of [cluster] or wait for its response.",
    ),
)


def cluster_metrics(
    slots: Sequence[OfSlot],
    destinations: Mapping[str, Mapping[str, Any]],
    delivery_totals: Mapping[str, Any],
) -> Iterator[Metric]:
    """Yield the metrics of the brokers; without `[cluster]`, they have no samples."""
    now = [
        *(((each.slot, ""), each.figures) for each in slots),
        *((("", name), own) for name, own in destinations.items()),
    ]
    for field, name, text in _GAUGES:
        yield gauge(name, text, _LABELS, _samples(now, "cluster_brokers", field))
    retries: dict[str, Any] = delivery_totals.get("cluster_retries", {})
    counted = [
        *(((each.slot, ""), each.totals) for each in slots),
        *((("", name), {"cluster_retries": own}) for name, own in retries.items()),
    ]
    yield counter(
        "pixelfast_cluster_retries",
        "Requests that were sent to a broker of [cluster] again.",
        _LABELS,
        (
            ([*place, broker], count)
            for place, own in counted
            for broker, count in own.get("cluster_retries", {}).items()
        ),
    )


def _samples(
    owners: Sequence[tuple[tuple[str, str], Mapping[str, Any]]], group: str, field: str
) -> Samples:
    return (
        ([*place, broker], figures[field])
        for place, own in owners
        for broker, figures in own.get(group, {}).items()
        if field in figures
    )
