"""Cutting batches from the NDJSON of a log; events are parsed only if a filter requires it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pixelfast.deliver.batches import BatchLimits, Cut, Pieces, after_events
from pixelfast.deliver.event_log import EventLog, FrameReader
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import Frame, Position

__all__ = ["Cutter"]

_LINE_FEED = re.compile(b"\n")
_CHUNK_BYTES = 2**20
_EVENTS_A_LOOK_AT_THE_CLOCK = 64
_FRAMES_A_LOOK_AT_THE_CLOCK = 64


class Cutter:
    """Read all slots for one destination and cut the events it accepts into batches.

    `cursors` are the positions to start at, and `numbers` the numbers of the events there, if they
    are known. Slots without a cursor are read from their beginning. At most `chunk_bytes` are
    read at once.

    Attributes:
        limits: the limits of a batch; may be replaced between two batches.
        has_more: whether the last `cut` ended before it reached the end of each slot.
    """

    def __init__(
        self,
        log: EventLog,
        cursors: dict[int, Position],
        limits: BatchLimits,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        numbers: dict[int, int] | None = None,
        *,
        chunk_bytes: int = _CHUNK_BYTES,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
    ) -> None:
        self.limits = limits
        self._chunk_bytes = min(chunk_bytes, _CHUNK_BYTES)
        self._turn_s = timings.cutter_turn_s
        self._now_s = clock.monotonic_s
        self._until_s = 0.0  # when the current `cut` must end
        self._log = log
        self.select(selection)
        self._cursors = cursors
        self._readers: dict[int, FrameReader] = {}
        self._frames: dict[int, list[Frame]] = {}  # read but not cut yet, the next one last
        self._reached: dict[int, Position] = {}
        self._open = Cut()
        self._is_closed = False  # the next event did not fit into the open batch
        self._first_slot = 0  # the next `cut` begins with it
        self._numbers = dict(numbers or {})  # by slot: the number of the next event, once known
        self.has_more = False
        self.find_slots()

    @property
    def cursors(self) -> dict[int, Position]:
        """Where cutting continues, by slot."""
        return dict(self._reached)

    def select(self, selection: Selection) -> None:
        """Change the selection; only between two batches."""
        self._selection = selection
        self._picks = selection.picker() if selection.parses else None

    def find_slots(self) -> None:
        """Begin to read new slots, and close slots that were removed."""
        there = self._log.slots()
        for slot in there:
            if slot not in self._readers:
                start = self._cursors.get(slot, Position())
                self._begin(slot, start)
        for slot in self._readers.keys() - set(there):
            if slot not in self._open.after:
                self._readers.pop(slot).close()
                del self._frames[slot]
                self._cursors[slot] = self._reached.pop(slot)  # in case the slot returns

    def skip_to(self, slot: int, position: Position) -> int:
        """Continue at a later position of a slot, and return how many events are skipped.

        Only between two batches, because a batch is one range of a slot.
        """
        if slot not in self._readers or position <= self._reached[slot]:
            return 0
        before = self._number(slot)
        self._readers[slot].close()
        self._begin(slot, position)
        self._numbers.pop(slot, None)
        after = self._number(slot)
        return after - before if before is not None and after is not None else 0

    def unread_events(self, end_numbers: Mapping[int, int]) -> int:
        """Return the number of events not cut yet, given the number of each slot's next event."""
        unread = 0
        for slot, end in end_numbers.items():
            known = self._number(slot) if slot in self._readers else self._numbers.get(slot)
            unread += max(0, end - known) if known is not None else 0
        return unread

    def ends_from(self, end_numbers: Mapping[int, int]) -> dict[int, int]:
        """Return `end_numbers`, raised to the numbers of events that were already cut.

        A new slot is left out until `find_slots` has found it, because it is not known until then
        how many of its events are unread.
        """
        found = self._numbers.keys() | (self._readers.keys() & end_numbers.keys())
        return {slot: max(end_numbers.get(slot, 0), self._numbers.get(slot, 0)) for slot in found}

    def known_numbers(self, slots: Iterable[int]) -> dict[int, int]:
        """Return the number of the next event of each slot, if it is known."""
        return {slot: self._numbers[slot] for slot in slots if slot in self._numbers}

    @property
    def open_counts(self) -> dict[str, int]:
        """The counts of the open batch, by the names of the totals."""
        return self._open.counts

    @property
    def open_events(self) -> int:
        """The number of events in the open batch."""
        return self._open.events

    def _number(self, slot: int) -> int | None:
        """Return the number of the event that is cut next, or None if it is not known yet."""
        if slot not in self._numbers:
            frames = self._frames[slot]
            if not frames:
                self._read(slot)
            if frames:
                frame, reached = frames[-1], self._reached[slot]
                is_begun = (reached.segment, reached.offset) == (frame.segment, frame.offset)
                self._numbers[slot] = frame.first_number + (reached.skip if is_begun else 0)
        return self._numbers.get(slot)

    def _begin(self, slot: int, start: Position) -> None:
        self._readers[slot] = self._log.follow(slot, start)
        self._frames[slot] = []
        self._reached[slot] = start

    def cut(self) -> bool:
        """Add stored events to the open batch, and return whether it is full.

        Reads to the end of each slot once and does not wait for new events. Ends after about 2 ms,
        so that other destinations get their turn; `has_more` is then True.
        """
        self._until_s = self._now_s() + self._turn_s
        slots = sorted(self._readers)
        turn = next((i for i, slot in enumerate(slots) if slot >= self._first_slot), 0)
        self.has_more = False
        for slot in slots[turn:] + slots[:turn]:
            if not self._cut_slot(slot):
                self.has_more = True
                self._first_slot = slot + 1  # so that no slot delays the others forever
                break
        for pieces in self._open.pieces.values():
            pieces.copy_out()
        return self._is_full()

    def _cut_slot(self, slot: int) -> bool:
        """Add events up to the end of a slot; return False if the batch or the turn ends first."""
        frames, reader = self._frames[slot], self._readers[slot]
        has_looked = False
        while True:
            while frames:
                if self._is_full() or not (self._take_whole(slot) or self._take(slot)):
                    return False
                if self._now_s() >= self._until_s:
                    return not frames and has_looked and reader.is_at_end
            if (has_looked and reader.is_at_end) or not self._read(slot):
                return True
            has_looked = True

    def _read(self, slot: int) -> bool:
        """Continue reading a slot; return False if it has no new events."""
        found = self._readers[slot].read(self._chunk_bytes)
        self._frames[slot].extend(reversed(found))
        return bool(found)

    @property
    def buffered_bytes(self) -> int:
        """The memory used by frames that were read but not cut yet."""
        return sum(self._readers[slot].buffer_bytes for slot, each in self._frames.items() if each)

    def release(self) -> None:
        """Release frames that were read but not cut yet; they are read again when needed."""
        for slot, frames in self._frames.items():
            if frames:
                self._readers[slot].rewind(frames[-1])
                frames.clear()

    @property
    def oldest_ms(self) -> int:
        """When the oldest event of the open batch was received; 0 without events."""
        return self._open.oldest_ms

    def has_moved(self) -> bool:
        """Whether the open batch covers any events, even if all of them were filtered out."""
        return bool(self._open.after)

    def close_batch(self) -> Cut:
        """Return the open batch and begin the next one."""
        cut, self._open, self._is_closed = self._open, Cut(), False
        return cut

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _is_full(self) -> bool:
        cut = self._open
        if cut.events >= self.limits.max_events or cut.size_bytes >= self.limits.max_bytes:
            return True
        return self._is_closed

    def _take_whole(self, slot: int) -> int:
        """Add consecutive whole frames of one source, numbered without a gap; return how many.

        Equivalent to calling `_take` for each frame, but updates the counts only once: with few
        clients, each event is in its own frame.
        """
        number = self._numbers.get(slot)
        if self._picks is not None or number is None or self._reached[slot].skip:
            return 0
        frames, cut, limits = self._frames[slot], self._open, self.limits
        events, size_bytes, oldest_ms = cut.events, cut.size_bytes, cut.oldest_ms
        first_number, run, stop = number, "", (0, 0)
        views: list[memoryview] = []
        for segment, offset, length, source, count, received_ms, first, body in reversed(frames):
            if source != run:
                if views or not self._selection.takes_source(source):
                    break
                run = source
            body_bytes = len(body)
            if (
                first != number
                or events + count > limits.max_events
                or size_bytes + body_bytes > limits.max_bytes
                or len(views) == _FRAMES_A_LOOK_AT_THE_CLOCK
            ):
                break
            if not events or received_ms < oldest_ms:
                oldest_ms = received_ms
            views.append(body)
            events += count
            size_bytes += body_bytes
            number += count
            stop = segment, offset + length
        if views:
            del frames[-len(views) :]
            if slot not in cut.start:
                cut.start[slot], cut.first_numbers[slot] = self._reached[slot], first_number
            cut.pieces.setdefault(slot, Pieces()).add_all(run, views, number - first_number)
            cut.events, cut.size_bytes, cut.oldest_ms = events, size_bytes, oldest_ms
            cut.after[slot] = self._reached[slot] = Position(*stop)
            cut.numbers[slot] = self._numbers[slot] = number
        return len(views)

    def _take(self, slot: int) -> bool:
        """Add one frame of a slot, or as many of its events as fit; return False if none fits."""
        frames = self._frames[slot]
        frame = frames[-1]
        cut = self._open
        reached = self._reached[slot]
        is_begun = (reached.segment, reached.offset) == (frame.segment, frame.offset)
        skip = reached.skip if is_begun else 0
        if skip >= frame.events:
            skip, passed, taken = -1, 0, frame.events  # the cursor is after the whole frame
        elif self._selection.takes_source(frame.source):
            passed = self._take_events(slot, frame, skip)
            taken = skip + passed
        else:
            passed, taken = frame.events - skip, frame.events
            cut.filtered += passed
        if taken == skip:
            return False
        if taken < frame.events:
            position = Position(frame.segment, frame.offset, taken)
        else:
            frames.pop()
            position = Position(frame.segment, frame.offset + frame.length)
        if slot not in cut.start:
            cut.start[slot] = reached
            cut.first_numbers[slot] = frame.first_number + max(skip, 0)
        cut.after[slot] = self._reached[slot] = position
        number = frame.first_number + taken
        gap = number - self._numbers.get(slot, number - passed) - passed
        cut.missing += max(0, gap)
        cut.repeated += max(0, -gap)
        cut.numbers[slot] = self._numbers[slot] = number
        return True

    def _take_events(self, slot: int, frame: Frame, skip: int) -> int:
        """Add events of a frame from event `skip` on; return how many were added or filtered."""
        cut = self._open
        left_bytes = self.limits.max_bytes - cut.size_bytes
        left_events = self.limits.max_events - cut.events
        if self._picks is not None:
            return self._pick_events(slot, frame, skip, left_events, left_bytes)
        start = after_events(frame.body, 0, skip)
        if frame.events - skip <= left_events and len(frame.body) - start <= left_bytes:
            events, end = frame.events - skip, len(frame.body)
        else:
            events, end = 0, start
            for line_feed in _LINE_FEED.finditer(frame.body, start):
                is_first = cut.events + events == 0
                if events == left_events or (line_feed.end() - start > left_bytes and not is_first):
                    break
                events, end = events + 1, line_feed.end()
        if events:
            self._keep(slot, frame, frame.body[start:end], events)
        else:
            self._is_closed = True
        return events

    def _pick_events(
        self, slot: int, frame: Frame, skip: int, left_events: int, left_bytes: int
    ) -> int:
        """Do the same as `_take_events`, event by event, for a filter that parses events."""
        assert self._picks is not None
        start = after_events(frame.body, 0, skip)
        passed = 0
        for line_feed in _LINE_FEED.finditer(frame.body, start):
            event = bytes(frame.body[start : line_feed.end()])
            if self._picks(event):
                is_first = self._open.events == 0
                if left_events == 0 or (len(event) > left_bytes and not is_first):
                    self._is_closed = True
                    break
                left_events -= 1
                left_bytes -= len(event)
                self._keep(slot, frame, event, 1)
            else:
                self._open.filtered += 1
            passed += 1
            start = line_feed.end()
            is_time = passed % _EVENTS_A_LOOK_AT_THE_CLOCK == 0
            if is_time and self._now_s() >= self._until_s:
                break
        return passed

    def _keep(self, slot: int, frame: Frame, piece: bytes | memoryview, events: int) -> None:
        cut = self._open
        if not cut.events or frame.received_ms < cut.oldest_ms:
            cut.oldest_ms = frame.received_ms
        cut.pieces.setdefault(slot, Pieces()).add(frame.source, piece, events)
        cut.events += events
        cut.size_bytes += len(piece)
