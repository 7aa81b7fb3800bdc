"""Batches of events, cut from the spool's NDJSON, and how to read the same bytes again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

from pixelfast.deliver.event_log import EventLog, FrameReader
from pixelfast.deliver.selection import Selection
from pixelfast.spool import Frame, Position

__all__ = [
    "Batch",
    "BatchLimits",
    "Cut",
    "Pieces",
    "Range",
    "Run",
    "after_events",
    "read_ranges",
    "some_events",
]

_LINE_FEED = re.compile(b"\n")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of a batch. A single event may be larger than `max_bytes`."""

    max_events: int
    max_bytes: int
    max_age_s: float


class Range(msgspec.Struct, frozen=True, array_like=True):
    """A range of a slot's log: the events from `start` to `stop`, exclusive."""

    slot: int
    start: Position
    stop: Position


class Run(NamedTuple):
    """Consecutive events of one source in a batch."""

    source: str
    events: int


@dataclass(slots=True)
class Batch:
    """The events of one request or write. A retry has the same id and the same bytes.

    Attributes:
        body: the events as NDJSON.
        runs: the sources of the events, in their order; empty if they are not known.
        numbers: for a part of a batch, the positions of its events in the whole.
        root: for a part of a batch, the id of the whole.
    """

    id: str = ""
    attempt: int = 1
    body: bytes = b""
    events: int = 0
    runs: tuple[Run, ...] = ()
    numbers: list[int] | None = None
    root: str = ""

    @property
    def size_bytes(self) -> int:
        return len(self.body)

    def sources(self) -> list[str]:
        """Return the source of each event, or "" if it is not known."""
        if not self.runs:
            return [""] * self.events
        sources: list[str] = []
        for run in self.runs:
            sources += [run.source] * run.events
        return sources

    def event_ids(self) -> list[str]:
        """Return an id for each event, for destinations that accept one event at a time.

        An event has the same id in a whole batch and in a part of it. The id contains no full stop,
        which separates the parts of the content that Standard Webhooks sign.
        """
        numbers = range(self.events) if self.numbers is None else self.numbers
        return [f"{self.root or self.id}-{n}" for n in numbers]

    def ndjson(self) -> bytes:
        """Return the events, each followed by a line feed."""
        return self.body

    def joined(self, before: bytes = b"[", behind: bytes = b"]") -> bytes:
        """Return the events separated by commas, between `before` and `behind`: a JSON array.

        JSON contains no raw line feed, so each line feed in the body ends an event.
        """
        # This makes two copies of the events; another copy would cost 0.1 µs per event.
        return b"".join((before, memoryview(self.body.replace(b"\n", b","))[:-1], behind))

    def lines(self) -> list[bytes]:
        """Return each event without its line feed."""
        lines = self.body.split(b"\n")
        lines.pop()  # the empty string after the last line feed
        return lines


class Pieces:
    """The events of one slot that are being collected for a batch.

    A view keeps the whole buffer that was read in memory, however small the view is. The events are
    therefore copied after each read of the log, so that only they are kept.
    """

    def __init__(self) -> None:
        self._views: list[bytes | memoryview] = []
        self._kept: list[bytes] = []
        self._runs: list[Run] = []

    def add(self, source: str, piece: bytes | memoryview, events: int) -> None:
        """Add events of a source, as they are in the spool."""
        self.add_all(source, (piece,), events)

    def add_all(self, source: str, pieces: Iterable[bytes | memoryview], events: int) -> None:
        """Add several pieces of a source that together contain `events` events."""
        self._views += pieces
        if self._runs and self._runs[-1].source == source:
            self._runs[-1] = Run(source, self._runs[-1].events + events)
        else:
            self._runs.append(Run(source, events))

    def copy_out(self) -> None:
        """Copy the events, and release the buffer that was read."""
        if self._views:
            self._kept.append(b"".join(self._views))
            self._views.clear()

    @staticmethod
    def joined(parts: Iterable[Pieces]) -> tuple[bytes, tuple[Run, ...]]:
        """Return the body of a batch, and the sources of its events."""
        kept: list[bytes] = []
        runs: list[Run] = []
        for each in parts:
            each.copy_out()
            kept += each._kept
            runs += each._runs
        return b"".join(kept), tuple(runs)


@dataclass(slots=True)
class Cut:
    """The events that are cut for the next batch, by slot.

    Attributes:
        start, after: where the batch starts and where the next one continues.
        first_numbers, numbers: the numbers of the events at `start` and at `after`.
        oldest_ms: when the first event of the oldest frame was received.
        filtered: events that the destination does not accept.
        missing: numbered events that are not in the spool: damaged, or never acknowledged.
        repeated: events that are in the spool twice, because a commit was reported as failed but
            was stored.
    """

    pieces: dict[int, Pieces] = field(default_factory=dict)
    start: dict[int, Position] = field(default_factory=dict)
    after: dict[int, Position] = field(default_factory=dict)
    first_numbers: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    events: int = 0
    size_bytes: int = 0
    oldest_ms: int = 0
    filtered: int = 0
    missing: int = 0
    repeated: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The events that are not sent or not expected, by the names of a destination's totals."""
        counts = {"filtered": self.filtered, "missing": self.missing, "repeated": self.repeated}
        return {name: events for name, events in counts.items() if events}

    @property
    def ranges(self) -> list[Range]:
        return [Range(slot, self.start[slot], self.after[slot]) for slot in sorted(self.after)]

    def batch(self) -> Batch:
        """Return the events in the order of `ranges`, in which a plan reads them again."""
        body, runs = Pieces.joined(self.pieces[slot] for slot in sorted(self.pieces))
        return Batch(body=body, events=self.events, runs=runs)


def some_events(lines: list[bytes], sources: list[str], places: Sequence[int]) -> Batch:
    """Return some of the events of a batch, by their positions in it.

    >>> some_events([b"{}", b"[]"], ["web", "mail"], [1]).runs
    (Run(source='mail', events=1),)
    """
    body = b"".join([lines[place] + b"\n" for place in places])
    by_source = groupby(sources[place] for place in places)
    runs = tuple(Run(source, sum(1 for _ in events)) for source, events in by_source)
    return Batch(body=body, events=len(places), runs=runs)


def read_ranges(log: EventLog, ranges: list[Range], selection: Selection) -> Batch:
    """Return the events of ranges that were cut before, as far as the log still has them.

    Blocks.
    """
    picks = selection.picker() if selection.parses else None
    pieces = Pieces()
    for each in ranges:
        reader = log.reread(each.slot, each.start)
        try:
            for frames in _frames_before(reader, each.stop):
                for frame in frames:
                    if selection.takes_source(frame.source):
                        _take_again(pieces, frame, each, picks)
                pieces.copy_out()
        finally:
            reader.close()
    body, runs = Pieces.joined([pieces])
    return Batch(body=body, events=sum(run.events for run in runs), runs=runs)


def _frames_before(reader: FrameReader, stop: Position) -> Iterator[list[Frame]]:
    while frames := reader.read():
        before = [each for each in frames if Position(each.segment, each.offset, 0) < stop]
        yield before
        if len(before) < len(frames):
            return


def _take_again(
    pieces: Pieces, frame: Frame, ends: Range, picks: Callable[[bytes], bool] | None
) -> None:
    """Add the events of a frame that are in a range."""
    place = (frame.segment, frame.offset)
    first = ends.start.skip if place == ends.start[:2] else 0
    stop = ends.stop.skip if place == ends.stop[:2] else frame.events
    begin = after_events(frame.body, 0, first)
    if picks is None:
        if stop > first:
            end = after_events(frame.body, begin, stop - first)
            pieces.add(frame.source, frame.body[begin:end], stop - first)
        return
    for line_feed in islice(_LINE_FEED.finditer(frame.body, begin), stop - first):
        event = bytes(frame.body[begin : line_feed.end()])
        begin = line_feed.end()
        if picks(event):
            pieces.add(frame.source, event, 1)


def after_events(body: memoryview, start: int, events: int) -> int:
    """Return the offset of the event that is `events` events after the one at `start`."""
    if not events:
        return start
    return next(islice(_LINE_FEED.finditer(body, start), events - 1, None)).end()
