"""Cutting batches from the spool's NDJSON, without parsing an event."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from pixelfast.spool import DataDir, Frame, Position, SlotReader

__all__ = ["Batch", "Cutter", "Limits"]

_LINE_FEED = re.compile(b"\n")
_MOST_PASSED_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may become. One event alone may be larger than `max_bytes`."""

    max_events: int
    max_bytes: int
    max_age_s: float


@dataclass(slots=True)
class Batch:
    """Events of one send, and where each slot's reading goes on once they are delivered."""

    id: str = ""  # the same on every try, and so are the bytes
    attempt: int = 1
    pieces: list[memoryview] = field(default_factory=list)  # NDJSON, whole events
    events: int = 0
    size_bytes: int = 0
    oldest_ms: int = 0  # when the first event of its oldest frame was received
    after: dict[int, Position] = field(default_factory=dict)
    skipped: int = 0  # events of sources that the destination does not take

    def event_ids(self) -> list[str]:
        """Each event's own id for destinations that take one at a time; stable as the batch's."""
        return [f"{self.id}.{n}" for n in range(self.events)]

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


class Cutter:
    """Reads all slots for one destination and cuts what it takes into batches.

    `takes` tells by a source's name whether its events are wanted; None: all are. `cursors` are the
    positions to start at; slots without one are read from their beginning.
    """

    def __init__(
        self,
        data: DataDir,
        cursors: dict[int, Position],
        limits: Limits,
        takes: Callable[[str], bool] | None = None,
    ) -> None:
        self.limits = limits
        self._data = data
        self._takes = takes
        self._cursors = cursors
        self._readers: dict[int, SlotReader] = {}
        self._frames: dict[int, list[Frame]] = {}  # read and not cut yet, the next one last
        self._reached: dict[int, Position] = {}
        self._open = Batch()
        self._passed_bytes = 0
        self._is_closed = False  # the next event did not fit into the open batch
        self.has_more = False  # the last `cut` ended before it had looked at everything
        self.find_slots()

    @property
    def damaged_bytes(self) -> int:
        return sum(reader.damaged_bytes for reader in self._readers.values())

    def find_slots(self) -> None:
        """Begin to read the slots that have come since."""
        for slot in self._data.slots():
            if slot not in self._readers:
                start = self._cursors.get(slot, Position())
                self._readers[slot] = SlotReader(self._data, slot, start)
                self._frames[slot] = []
                self._reached[slot] = start

    def cut(self) -> bool:
        """Take what is there into the open batch; True when that is full.

        Reads through the page cache and does not wait for new events. Goes past a few MiB of
        events that are not wanted at the most, so that other destinations get their turn; then
        `has_more` says so.
        """
        self._passed_bytes = 0
        is_moving = True
        while is_moving and not self._is_full() and self._passed_bytes < _MOST_PASSED_BYTES:
            is_moving = False
            for slot in self._readers:
                is_moving = self._take(slot) or is_moving
                if self._is_full():
                    break
        self.has_more = is_moving
        return self._is_full()

    @property
    def oldest_ms(self) -> int:
        """When the oldest event of the open batch was received; 0 where there is none."""
        return self._open.oldest_ms

    def has_moved(self) -> bool:
        """Whether the open batch gets past anything, if only past other sources' events."""
        return bool(self._open.after)

    def close_batch(self) -> Batch:
        """The open batch; the next one begins."""
        batch, self._open, self._is_closed = self._open, Batch(), False
        return batch

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _is_full(self) -> bool:
        batch = self._open
        if batch.events >= self.limits.max_events or batch.size_bytes >= self.limits.max_bytes:
            return True
        return self._is_closed

    def _take(self, slot: int) -> bool:
        """Take one frame of a slot, or as much of it as the batch has room for."""
        frames = self._frames[slot]
        if not frames:
            frames.extend(reversed(self._readers[slot].read()))
            if not frames:
                return False
        frame = frames[-1]
        batch = self._open
        reached = self._reached[slot]
        is_begun = (reached.segment, reached.offset) == (frame.segment, frame.offset)
        skip = reached.skip if is_begun else 0
        if skip >= frame.events:
            skip, taken = -1, frame.events  # the cursor is behind all of them
        elif self._takes is None or self._takes(frame.source):
            taken = skip + self._take_events(frame, skip)
        else:
            self._passed_bytes += frame.length
            batch.skipped += frame.events - skip
            taken = frame.events
        if taken == skip:
            return False
        if taken < frame.events:
            self._reached[slot] = Position(frame.segment, frame.offset, taken)
        else:
            frames.pop()
            self._reached[slot] = Position(frame.segment, frame.offset + frame.length)
        batch.after[slot] = self._reached[slot]
        return True

    def _take_events(self, frame: Frame, skip: int) -> int:
        """Take events of a frame from event `skip` on, as many as fit; returns how many."""
        batch = self._open
        room_bytes = self.limits.max_bytes - batch.size_bytes
        room_events = self.limits.max_events - batch.events
        start = _after_events(frame.body, 0, skip)
        if frame.events - skip <= room_events and len(frame.body) - start <= room_bytes:
            events, end = frame.events - skip, len(frame.body)
        else:
            events, end = 0, start
            for line_feed in _LINE_FEED.finditer(frame.body, start):
                is_first = batch.events + events == 0
                if events == room_events or (line_feed.end() - start > room_bytes and not is_first):
                    break
                events, end = events + 1, line_feed.end()
        if events:
            if not batch.events or frame.received_ms < batch.oldest_ms:
                batch.oldest_ms = frame.received_ms
            batch.pieces.append(frame.body[start:end])
            batch.events += events
            batch.size_bytes += end - start
        else:
            self._is_closed = True
        return events


def _after_events(body: memoryview, start: int, events: int) -> int:
    """Where the event stands that comes `events` after the one at `start`."""
    if not events:
        return start
    return next(islice(_LINE_FEED.finditer(body, start), events - 1, None)).end()
