"""Events in slots, and the batches that a cutter makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pixelfast.deliver.batches import Batch, BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.event_log import SpoolLog
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Position
from tests.spools import Feed

NO_LIMITS = BatchLimits(max_events=10**9, max_bytes=10**12, max_age_s=0.0)


def event(number: int, padding: int = 0) -> bytes:
    """Return the JSON of an event with this number."""
    return json.dumps({"n": number, "p": "x" * padding}, separators=(",", ":")).encode()


def fill(feed: Feed, start: int, stop: int, source: str = "web") -> None:
    """Write events in frames of 20."""
    for first in range(start, stop, 20):
        feed.write(*map(event, range(first, min(first + 20, stop))), source=source)


def ndjson(events: Iterable[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in events)


def batch_of(events: Iterable[bytes], identity: str = "batch") -> Batch:
    """Make a batch to send."""
    body = ndjson(events)
    return Batch(id=identity, body=body, events=body.count(b"\n"))


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of the events in all files of a folder, in the order of file names."""
    names = sorted(folder.glob("*.ndjson")) if folder.exists() else []
    texts = [path.read_bytes() for path in names]
    assert all(text.endswith(b"\n") for text in texts if text), "whole lines only"
    return [json.loads(line)["n"] for text in texts for line in text.split(b"\n")[:-1]]


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder except its lock, in the order of names."""
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


def taking(sources: frozenset[str] | None) -> Selection:
    """Return the selection of a destination for these sources, or for all if None."""
    if sources is None:
        return Selection()
    return Selection(
        tuple(each for each in ("web", "web2", "mail", "app", "a", "b", "c") if each not in sources)
    )


def cut_all(
    data: DataDir,
    limits: BatchLimits,
    cursors: dict[int, Position] | None = None,
    sources: frozenset[str] | None = None,
) -> list[Cut]:
    """Cut all stored events into batches; the last one is cut as if it were due."""
    cutter = Cutter(SpoolLog(data), cursors or {}, limits, taking(sources))
    try:
        batches: list[Cut] = []
        while (is_full := cutter.cut()) or cutter.has_more or cutter.has_moved():
            assert cutter.has_moved() or not is_full, "a batch is full of nothing"
            if is_full or not cutter.has_more:  # otherwise only the turn has ended
                batches.append(cutter.close_batch())
        return batches
    finally:
        cutter.close()


def whole(cut: Cut) -> Batch:
    """Return the batch of a cut."""
    return cut.batch()


def lines_of(batches: Iterable[Cut]) -> list[bytes]:
    return [line for cut in batches if cut.events for line in whole(cut).lines()]


def as_json(cut: Cut) -> Any:
    return json.loads(whole(cut).joined())
