"""Fill a spool with events as a collector does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks.corpus import targets
from pixelfast.commands.decode import Explainer
from pixelfast.spool import DataDir, SlotFiles
from pixelfast.spool.batch import CommitBatch

__all__ = ["EVENTS_A_FRAME", "SOURCE", "events", "fill"]

EVENTS_A_FRAME = 250  # the size of a commit under load
SOURCE = "demo"


def events() -> list[bytes]:
    """Return the JSON of the 1,000 pixels of the load."""
    explainer = Explainer(None, full=True)
    return [
        orjson.dumps(orjson.loads(explainer.line(each.encode()))["event"]) for each in targets("k")
    ]


def fill(
    folder: Path,
    count: int,
    events_a_frame: int = EVENTS_A_FRAME,
    own: Sequence[bytes] | None = None,
    slot: int = 0,
) -> int:
    """Add events to a slot of a data directory; return their size in bytes.

    `count` must be a multiple of `events_a_frame`. `own` replaces the events of the load.

    The content of a frame is collected once and sealed again for each position, and segments are
    synced together at the end. Otherwise, ten million events would take minutes.
    """
    if count % events_a_frame:
        raise ValueError(f"{count:,} events are not a multiple of {events_a_frame}")
    batches = _batches(events_a_frame, own or events())
    files = SlotFiles(DataDir.open(folder), slot, 64 * 2**20)
    segment, first_number = files.create(), files.next_number
    size_bytes = 0
    for number in range(count // events_a_frame):
        batch = batches[number % len(batches)]
        if segment.offset + batch.sealed_bytes([SOURCE.encode()]) > files.segment_bytes:
            os.ftruncate(segment.fd, segment.offset)
            os.close(segment.fd)
            segment = files.create()
        place = segment.id, segment.offset
        batch.seal([SOURCE.encode()], *place, first_number + number * events_a_frame)
        image = batch.sealed()
        assert os.pwrite(segment.fd, image, segment.offset) == len(image), "the disk is full"
        segment.offset += len(image)
        size_bytes += batch.event_bytes
    files.retire(segment, is_sound=True)
    files.close()
    os.sync()
    return size_bytes


def _batches(events_a_frame: int, own: Sequence[bytes]) -> list[CommitBatch]:
    now_ms = time.time_ns() // 1_000_000
    batches = []
    for start in range(0, len(own), events_a_frame):
        batch = CommitBatch()
        for event in own[start : start + events_a_frame]:
            batch.add(0, event, now_ms)
        batches.append(batch)
    if any(len(batch) != events_a_frame for batch in batches):
        raise ValueError(f"{len(own):,} events are not a multiple of {events_a_frame}")
    return batches
