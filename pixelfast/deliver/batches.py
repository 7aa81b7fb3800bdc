"""Batches of events, cut from the spool's NDJSON, and how to cut the same bytes again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise

import msgspec

from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Frame, Position, SlotReader

__all__ = ["Batch", "Cut", "Limits", "Range", "after_events", "read_ranges"]

_LINE_FEED = re.compile(b"\n")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may become. One event alone may be larger than `max_bytes`."""

    max_events: int
    max_bytes: int
    max_age_s: float


class Range(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a slot's log: the events from `start` up to, and without, `stop`."""

    slot: int
    start: Position
    stop: Position


@dataclass(slots=True)
class Batch:
    """Events of one send. A second try has the same id and the same bytes."""

    id: str = ""
    attempt: int = 1
    pieces: list[memoryview] = field(default_factory=list)  # NDJSON, whole events
    events: int = 0
    size_bytes: int = 0
    numbers: list[int] | None = None  # of a part of a batch: where its events stood in the whole
    root: str = ""  # the id of that whole

    def event_ids(self) -> list[str]:
        """Each event's own id, for destinations that take one at a time.

        The same in a whole batch and in a part of it. No full stop is in it: what Standard
        Webhooks signs is split at them.
        """
        numbers = range(self.events) if self.numbers is None else self.numbers
        return [f"{self.root or self.id}-{n}" for n in numbers]

    def ndjson(self) -> bytes:
        """One event a line, the last line feed with it."""
        return b"".join(self.pieces)

    def joined(self, before: bytes = b"[", behind: bytes = b"]") -> bytes:
        """The events as a JSON array, or within what stands around one.

        JSON holds no raw line feed, so each one in the body ends an event.
        """
        return before + self.ndjson()[:-1].replace(b"\n", b",") + behind

    def lines(self) -> list[bytes]:
        """Each event by itself, without its line feed."""
        return self.ndjson()[:-1].split(b"\n")


@dataclass(slots=True)
class Cut:
    """What is cut for the next batch, slot by slot."""

    pieces: dict[int, list[memoryview]] = field(default_factory=dict)
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

    @property
    def body(self) -> list[memoryview]:
        """The events in the order of `ranges`: the one that a plan comes back in."""
        return [piece for slot in sorted(self.pieces) for piece in self.pieces[slot]]


def read_ranges(data: DataDir, ranges: list[Range], selection: Selection) -> list[memoryview]:
    """The events of ranges that were cut before, as far as they are still there: the same bytes.

    Blocks for the disk.
    """
    picks = selection.picker() if selection.parses else None
    pieces: list[memoryview] = []
    for each in ranges:
        reader = SlotReader(data, each.slot, each.start)
        try:
            for frame in _frames_before(reader, each.stop):
                if selection.takes_source(frame.source):
                    piece = _within(frame, each)
                    pieces += [piece] if picks is None else _picked(piece, picks)
        finally:
            reader.close()
    return pieces


def _frames_before(reader: SlotReader, stop: Position) -> Iterator[Frame]:
    while frames := reader.read():
        for frame in frames:
            if Position(frame.segment, frame.offset, 0) >= stop:
                return
            yield frame


def _within(frame: Frame, ends: Range) -> memoryview:
    """The part of a frame's events that lies between two positions."""
    place = (frame.segment, frame.offset)
    first = ends.start.skip if place == ends.start[:2] else 0
    begin = after_events(frame.body, 0, first)
    if place != ends.stop[:2]:
        return frame.body[begin:]
    return frame.body[begin : after_events(frame.body, begin, ends.stop.skip - first)]


def _picked(piece: memoryview, picks: Callable[[bytes], bool]) -> list[memoryview]:
    ends = [0, *(line_feed.end() for line_feed in _LINE_FEED.finditer(piece))]
    events = (piece[start:end] for start, end in pairwise(ends))
    return [event for event in events if picks(bytes(event))]


def after_events(body: memoryview, start: int, events: int) -> int:
    """Where the event stands that comes `events` after the one at `start`."""
    if not events:
        return start
    return next(islice(_LINE_FEED.finditer(body, start), events - 1, None)).end()
