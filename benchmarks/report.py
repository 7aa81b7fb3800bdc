"""The result of a benchmark: a table for readers, and figures for the goals and the plots."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Section", "spread", "table"]


class Section(NamedTuple):
    """One benchmark's part of RESULTS.md.

    `figures` holds what JSON can hold: samples round by round, by names that `goals` and `plots`
    look up.
    """

    text: str  # Markdown
    figures: dict[str, Any]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, with the minimum and the maximum in parentheses."""
    low, high = min(values), max(values)
    return f"{median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
