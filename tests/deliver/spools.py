"""Events for delivery, written into a slot, and what a cutter makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pixelfast.deliver.batches import Batch, BatchLimits, Cut
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Position
from tests.spools import Feed

NO_LIMITS = BatchLimits(max_events=10**9, max_bytes=10**12, max_age_s=0.0)


def event(number: int, padding: int = 0) -> bytes:
    """One event's JSON; different for each number."""
    return json.dumps({"n": number, "p": "x" * padding}, separators=(",", ":")).encode()


def fill(feed: Feed, start: int, stop: int, source: str = "web") -> None:
    """Write events, 20 a frame."""
    for first in range(start, stop, 20):
        feed.write(*map(event, range(first, min(first + 20, stop))), source=source)


def ndjson(events: Iterable[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in events)


def batch_of(events: Iterable[bytes], identity: str = "batch") -> Batch:
    """A batch to send."""
    body = ndjson(events)
    return Batch(id=identity, body=body, events=body.count(b"\n"))


def numbers_in(folder: Path) -> list[int]:
    """The numbers of the events in all files of a folder, in the order of the files' names."""
    names = sorted(folder.glob("*.ndjson")) if folder.exists() else []
    texts = [path.read_bytes() for path in names]
    assert all(text.endswith(b"\n") for text in texts if text), "whole lines only"
    return [json.loads(line)["n"] for text in texts for line in text.split(b"\n")[:-1]]


def files_in(folder: Path) -> list[Path]:
    """What a folder holds beside its lock, in the order of the names."""
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


def taking(sources: frozenset[str] | None) -> Selection:
    """What a destination of these sources takes; of all where None."""
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
    """All batches that are there to cut, the last one as if it were old enough."""
    cutter = Cutter(data, cursors or {}, limits, taking(sources))
    try:
        batches: list[Cut] = []
        while (is_full := cutter.cut()) or cutter.has_more or cutter.has_moved():
            assert cutter.has_moved() or not is_full, "a batch is full of nothing"
            if is_full or not cutter.has_more:  # else only the turn has ended
                batches.append(cutter.close_batch())
        return batches
    finally:
        cutter.close()


def whole(cut: Cut) -> Batch:
    """What is sent of a cut."""
    return cut.batch()


def lines_of(batches: Iterable[Cut]) -> list[bytes]:
    return [line for cut in batches if cut.events for line in whole(cut).lines()]


def as_json(cut: Cut) -> Any:
    return json.loads(whole(cut).joined())
