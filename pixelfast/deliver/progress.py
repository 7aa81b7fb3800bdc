"""The metrics of a destination, from its totals and from its state file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

import msgspec

from pixelfast.deliver.store import Progress, read_progress
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool import DataDir, Position, SlotReader

__all__ = [
    "COUNTED",
    "accounted_events",
    "figures_on_disk",
    "oldest_undelivered_ms",
    "with_pending",
]

# Every event that was stored since a destination was registered is accounted for:
# stored + repeated - missing = delivered + dead + filtered + expired + pending.
COUNTED = ("delivered", "dead", "filtered", "expired", "missing", "repeated", "batches", "failures")
_HEAD_BYTES = 2**16  # read of a slot to find its oldest event


def with_pending(
    totals: Mapping[str, int], end_numbers: Mapping[int, int] | None
) -> dict[str, int]:
    """Return a destination's totals with `stored` and `pending`, which are calculated from them.

    `end_numbers` is the number of the next event by slot. If it is None because it is not known
    yet, `stored` and `pending` are omitted.

    >>> with_pending({"before": 10, "delivered": 4, "dead": 1}, {0: 20})["pending"]
    5
    """
    figures = dict.fromkeys(COUNTED, 0) | dict(totals)
    before = figures.pop("before", 0)
    if end_numbers is None:
        return figures
    stored = sum(end_numbers.values()) - before
    pending = stored - accounted_events(figures)
    return figures | {"stored": stored, "pending": max(0, pending)}


def accounted_events(totals: Mapping[str, int]) -> int:
    """Return how many of the stored events are not pending, according to these totals.

    >>> accounted_events({"delivered": 4, "dead": 1, "missing": 2, "repeated": 3})
    4
    """
    outcomes = ("delivered", "dead", "filtered", "expired", "missing")
    return sum(totals.get(name, 0) for name in outcomes) - totals.get("repeated", 0)


def figures_on_disk(
    data: DataDir, name: str, end_numbers: Mapping[int, int] | None, clock: DeliveryClock
) -> dict[str, float]:
    """Return a destination's totals, `pending` and `lag_s` from the disk, without its runner.

    Return nothing if the state cannot be read, because unknown figures are not 0. Blocks for the
    disk.
    """
    try:
        progress = read_progress(data.destination_dir(name) / "state.db")
        figures: dict[str, float] = dict(with_pending(progress.counted, end_numbers))
        oldest_ms = _oldest_ms(data, progress)
    except (OSError, sqlite3.Error, msgspec.DecodeError):
        return {}
    figures["lag_s"] = round(clock.age_s(oldest_ms), 3) if oldest_ms else 0.0
    return figures


def oldest_undelivered_ms(data: DataDir, name: str) -> int:
    """Return when a destination's oldest undelivered event was received.

    Return 0 without one, or if the destination has no state. Blocks for the disk.
    """
    try:
        return _oldest_ms(data, read_progress(data.destination_dir(name) / "state.db"))
    except (OSError, sqlite3.Error, msgspec.DecodeError):
        return 0


def _oldest_ms(data: DataDir, progress: Progress) -> int:
    """Return when the oldest undelivered event was received, or 0 without one."""
    times = [each.oldest_ms for each in progress.plans]
    for slot in data.slots():
        start = progress.cursors.get(slot, Position())
        with closing(SlotReader(data, slot, start)) as reader:
            times += [frame.received_ms for frame in reader.read(_HEAD_BYTES)[:1]]
    return min((each for each in times if each), default=0)
