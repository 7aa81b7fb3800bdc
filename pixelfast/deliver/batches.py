"""Batches of events, cut from the spool's NDJSON, and how to cut the same bytes again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Frame, Position, SlotReader

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
    """How large a batch may become. One event alone may be larger than `max_bytes`."""

    max_events: int
    max_bytes: int
    max_age_s: float


class Range(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a slot's log: the events from `start` up to, and without, `stop`."""

    slot: int
    start: Position
    stop: Position


class Run(NamedTuple):
    """Events of one source that stand side by side in a batch."""

    source: str
    events: int


@dataclass(slots=True)
class Batch:
    """Events of one send. A second try has the same id and the same bytes."""

    id: str = ""
    attempt: int = 1
    body: bytes = b""  # NDJSON, whole events
    events: int = 0
    runs: tuple[Run, ...] = ()  # the sources of its events, in their order; empty: not known
    numbers: list[int] | None = None  # of a part of a batch: where its events stood in the whole
    root: str = ""  # the id of that whole

    @property
    def size_bytes(self) -> int:
        return len(self.body)

    def sources(self) -> list[str]:
        """The source of each event; "" where it is not known."""
        if not self.runs:
            return [""] * self.events
        sources: list[str] = []
        for run in self.runs:
            sources += [run.source] * run.events
        return sources

    def event_ids(self) -> list[str]:
        """Each event's own id, for destinations that take one at a time.

        The same in a whole batch and in a part of it. No full stop is in it: what Standard
        Webhooks signs is split at them.
        """
        numbers = range(self.events) if self.numbers is None else self.numbers
        return [f"{self.root or self.id}-{n}" for n in numbers]

    def ndjson(self) -> bytes:
        """One event a line, the last line feed with it."""
        return self.body

    def joined(self, before: bytes = b"[", behind: bytes = b"]") -> bytes:
        """The events as a JSON array, or within what stands around one.

        JSON holds no raw line feed, so each one in the body ends an event.
        """
        # Two copies of the events; each one more costs 0.1 µs an event.
        return b"".join((before, memoryview(self.body.replace(b"\n", b","))[:-1], behind))

    def lines(self) -> list[bytes]:
        """Each event by itself, without its line feed."""
        lines = self.body.split(b"\n")
        lines.pop()  # what is behind the last line feed: nothing
        return lines


class Pieces:
    """The events of one slot on their way into a batch.

    Views of what was read keep all of it in memory, however small they are. So they are copied
    out once a look at the log is over: then only the events themselves are kept.
    """

    def __init__(self) -> None:
        self._views: list[bytes | memoryview] = []
        self._kept: list[bytes] = []
        self._runs: list[Run] = []

    def add(self, source: str, piece: bytes | memoryview, events: int) -> None:
        """Take events of a source, as they stand in the spool."""
        self.add_all(source, (piece,), events)

    def add_all(self, source: str, pieces: Iterable[bytes | memoryview], events: int) -> None:
        """Take several pieces of a source that hold so many events together."""
        self._views += pieces
        if self._runs and self._runs[-1].source == source:
            self._runs[-1] = Run(source, self._runs[-1].events + events)
        else:
            self._runs.append(Run(source, events))

    def copy_out(self) -> None:
        """Let go of what was read."""
        if self._views:
            self._kept.append(b"".join(self._views))
            self._views.clear()

    @staticmethod
    def joined(parts: Iterable[Pieces]) -> tuple[bytes, tuple[Run, ...]]:
        """The body of a batch, and the sources of its events."""
        kept: list[bytes] = []
        runs: list[Run] = []
        for each in parts:
            each.copy_out()
            kept += each._kept
            runs += each._runs
        return b"".join(kept), tuple(runs)


@dataclass(slots=True)
class Cut:
    """What is cut for the next batch, slot by slot."""

    pieces: dict[int, Pieces] = field(default_factory=dict)
    start: dict[int, Position] = field(default_factory=dict)
    after: dict[int, Position] = field(default_factory=dict)
    first_numbers: dict[int, int] = field(default_factory=dict)  # of the events at `start`
    numbers: dict[int, int] = field(default_factory=dict)  # and of those at `after`
    events: int = 0
    size_bytes: int = 0
    oldest_ms: int = 0  # when the first event of its oldest frame was received
    filtered: int = 0  # events passed by that the destination does not take
    missing: int = 0  # events that were numbered and are not there: damaged, or never acknowledged
    repeated: int = 0  # events that come again, after a commit that failed and did not

    @property
    def counts(self) -> dict[str, int]:
        """By the names of a destination's totals, what is not sent or must not be looked for."""
        counts = {"filtered": self.filtered, "missing": self.missing, "repeated": self.repeated}
        return {name: events for name, events in counts.items() if events}

    @property
    def ranges(self) -> list[Range]:
        return [Range(slot, self.start[slot], self.after[slot]) for slot in sorted(self.after)]

    def batch(self) -> Batch:
        """The events, in the order of `ranges`: the one that a plan comes back in."""
        body, runs = Pieces.joined(self.pieces[slot] for slot in sorted(self.pieces))
        return Batch(body=body, events=self.events, runs=runs)


def some_events(lines: list[bytes], sources: list[str], places: Sequence[int]) -> Batch:
    """Some of the events of a batch, by their places in it.

    >>> some_events([b"{}", b"[]"], ["web", "mail"], [1]).runs
    (Run(source='mail', events=1),)
    """
    body = b"".join([lines[place] + b"\n" for place in places])
    by_source = groupby(sources[place] for place in places)
    runs = tuple(Run(source, sum(1 for _ in events)) for source, events in by_source)
    return Batch(body=body, events=len(places), runs=runs)


def read_ranges(data: DataDir, ranges: list[Range], selection: Selection) -> Batch:
    """The events of ranges that were cut before, as far as they are still there: the same bytes.

    Blocks for the disk.
    """
    picks = selection.picker() if selection.parses else None
    pieces = Pieces()
    for each in ranges:
        reader = SlotReader(data, each.slot, each.start)
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


def _frames_before(reader: SlotReader, stop: Position) -> Iterator[list[Frame]]:
    while frames := reader.read():
        before = [each for each in frames if Position(each.segment, each.offset, 0) < stop]
        yield before
        if len(before) < len(frames):
            return


def _take_again(
    pieces: Pieces, frame: Frame, ends: Range, picks: Callable[[bytes], bool] | None
) -> None:
    """Take the events of a frame that lie in a range."""
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
    """Where the event stands that comes `events` after the one at `start`."""
    if not events:
        return start
    return next(islice(_LINE_FEED.finditer(body, start), events - 1, None)).end()
