"""Histograms in the form in which processes report them: counts by bucket, and the sum of values.

The bounds are powers of two. Compiled code has the same histograms in `histogram.pxd`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TypedDict

__all__ = ["BUCKETS", "COUNT_BOUNDS", "DURATION_BOUNDS_S", "DurationHistogram", "HistogramFigures"]

BUCKETS = 21  # the last is for values above all bounds
DURATION_BOUNDS_S = tuple(2**bits / 1e6 for bits in range(6, 6 + BUCKETS - 1))  # 64 µs to 34 s
COUNT_BOUNDS = tuple(2**bits for bits in range(BUCKETS - 1))  # 1 to 524,288


class HistogramFigures(TypedDict):
    """Attributes: counts by bucket, not cumulative; the sum of the values."""

    counts: list[int]
    sum: float


class DurationHistogram:
    """Counts durations by bucket.

    >>> histogram = DurationHistogram()
    >>> histogram.add(0.000_064)
    >>> histogram.add(0.000_065)
    >>> histogram.figures()["counts"][:3]
    [1, 1, 0]
    """

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(DURATION_BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def figures(self) -> HistogramFigures:
        return {"counts": list(self._counts), "sum": self._sum_s}
