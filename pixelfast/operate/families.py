"""Makes metric families of samples. An unknown figure has no sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from pixelfast.spool.histograms import COUNT_BOUNDS, DURATION_BOUNDS_S, HistogramFigures

__all__ = ["Samples", "count_histogram", "counter", "duration_histogram", "gauge"]

Samples = Iterable[tuple[Sequence[str], Any]]  # values of the labels, and the value


def counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> CounterMetricFamily:
    """Return a counter; `_total` is added to its name."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> GaugeMetricFamily:
    """Return a gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def duration_histogram(
    name: str, text: str, labels: Sequence[str], samples: Samples
) -> HistogramMetricFamily:
    """Return a histogram of durations; the values are `HistogramFigures`."""
    return _histogram(HistogramMetricFamily(name, text, labels=labels), DURATION_BOUNDS_S, samples)


def count_histogram(
    name: str, text: str, labels: Sequence[str], samples: Samples
) -> HistogramMetricFamily:
    """Return a histogram of counts; the values are `HistogramFigures`."""
    return _histogram(HistogramMetricFamily(name, text, labels=labels), COUNT_BOUNDS, samples)


def _histogram(
    family: HistogramMetricFamily, bounds: Sequence[float], samples: Samples
) -> HistogramMetricFamily:
    names = [*map(repr, bounds), "+Inf"]
    for values, value in samples:
        figures: HistogramFigures = value
        cumulative = accumulate(figures["counts"])
        family.add_metric(values, list(zip(names, cumulative, strict=True)), figures["sum"])
    return family
