"""A partition of the cluster's topic as the log of a runner.

The partition is the only slot of the log. The position of an event is the offset of its message and
its number in the frame. Events are numbered in the order of the partition.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Protocol

import structlog

from pixelfast.cluster.message import FramePlace, parse_headers
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place, SlotKey
from pixelfast.deliver.cluster.history import History
from pixelfast.deliver.dead_keeper import LogThrottle
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import Frame, Position
from pixelfast.spool.format import UNKNOWN_VERSION, SegmentId
from pixelfast.spool.frames import FRAME_MAGIC, parse_frame

__all__ = ["Fetch", "PartitionLog", "TopicMessage", "place_at", "position_at"]

_SEGMENT = 1  # in all positions, because a partition has no segments
_MAX_FRAMES = 256  # of one read
_CHUNK_BYTES = 2**20


class TopicMessage(Protocol):
    """The part of `confluent_kafka.Message` that is used."""

    def offset(self) -> int | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


Fetch = Callable[[int], Sequence[TopicMessage]]
"""Returns the next messages of the partition from an offset on; blocks. Empty at the end."""


def position_at(place: Place) -> Position:
    """Return a place as a position of the log.

    >>> position_at(Place(7, 2))
    Position(segment=1, offset=7, skip=2)
    """
    return Position(_SEGMENT, place.offset, place.skip)


def place_at(position: Position) -> Place:
    """Return a position of the log as a place in the partition."""
    return Place(position.offset, position.skip)


class PartitionLog:
    """The log of one partition, which begins at a checkpoint.

    Messages are checked when they arrive, so that their events count as stored. The log ends before
    a message of a later version of pixelfast, because its events must not be skipped.

    Attributes:
        history: the frames that have arrived.
        next_number: the number of the next event that arrives.
        waiting_bytes: the size of messages that have arrived but were not read.
        held: why the log ends before a message; "" if it does not.
    """

    def __init__(self, partition: int, checkpoint: Checkpoint, fetch: Fetch) -> None:
        self.history = History(checkpoint.slots, checkpoint.place.offset)
        self.next_number = checkpoint.totals.get("stored", 0)
        self.waiting_bytes = 0
        self.held = ""
        self._partition = partition
        self._fetch = fetch
        self._arrived: deque[TopicMessage] = deque()  # not checked yet
        self._frames: deque[tuple[Frame, int]] = deque()  # with the size of their messages
        self._ahead: dict[SlotKey, tuple[int, int]] = {}  # numbers of newer events, by slot
        self._start = Position()
        self._is_followed = False
        self._deleted = 0  # events that `next_number` includes, although they were deleted
        self._log = structlog.get_logger("deliver").bind(partition=partition)
        self._invalid = LogThrottle(Timings(), DeliveryClock())

    # --- the interface to a runner -----------------------------------------------------------

    def slots(self) -> list[int]:
        return [self._partition]

    def follow(self, slot: int, start: Position) -> PartitionReader:
        """Read the messages that arrive, of which the first one is at `start`."""
        del slot  # the partition
        self._start = start
        self._is_followed = True
        self._check()
        return PartitionReader(self)

    def reread(self, slot: int, start: Position) -> PartitionRereader:
        del slot
        return PartitionRereader(start.offset, self._fetch, self.history.skipped)

    def newest(self, slot: int) -> Iterable[Frame]:
        """Return no frames; probes use events that wait to be sent."""
        del slot
        return ()

    # --- messages ----------------------------------------------------------------------------

    def add(self, messages: Iterable[TopicMessage]) -> None:
        """Add messages that have arrived, in their order."""
        for each in messages:
            self._arrived.append(each)
            self.waiting_bytes += len(each.value() or b"")
        if self._is_followed:
            self._check()

    def _check(self) -> None:
        """Check the messages that have arrived."""
        while self._arrived:
            message = self._arrived[0]
            size_bytes = len(message.value() or b"")
            if reason := _later_version(message):
                if not self.held:
                    self.held = reason
                    self._log.error("message_held", offset=_offset(message), error=reason)
                return
            self._arrived.popleft()
            frame = self.take(message)
            if frame is None:
                self.waiting_bytes -= size_bytes
            else:
                if frame.offset == self._start.offset:  # unless this frame was deleted
                    self.next_number -= self._start.skip
                first_number = self.next_number + self._newly_deleted(frame.first_number)
                self.next_number = first_number + frame.events
                self._frames.append((frame._replace(first_number=first_number), size_bytes))

    @property
    def arrived_offset(self) -> int:
        """The offset after the last message that has arrived."""
        return _offset(self._arrived[-1]) + 1 if self._arrived else self.history.next_offset

    def look_ahead(self, messages: Iterable[TopicMessage]) -> None:
        """Note the newest messages of the partition, which arrive later."""
        for each in messages:
            with contextlib.suppress(ValueError):
                place, frame = _parsed(each)
                key = SlotKey(place.node, place.slot)
                first, stop = self._ahead.get(key, (frame.first_number, 0))
                after = frame.first_number + frame.events
                self._ahead[key] = min(first, frame.first_number), max(stop, after)

    @property
    def unread_events(self) -> int:
        """The number of events that have not arrived, according to `look_ahead`."""
        unread = 0
        for key, (first, stop) in self._ahead.items():
            last = self.history.slots.get(key)
            unread += max(0, stop - (last.next_number if last is not None else first))
        return unread

    def replay(self, stop: int) -> Iterable[Frame]:
        """Read the messages before offset `stop` again, from the checkpoint on. Blocks.

        Must be done before the first message is read.
        """
        offset = self.history.next_offset
        while offset < stop and (messages := self._fetch(offset)):
            for each in messages:
                offset = _offset(each) + 1
                if offset <= stop and (frame := self.take(each)):
                    self._deleted -= frame.first_number
                    yield frame

    def has(self, offset: int) -> bool:
        """Whether the topic still has the message at `offset`. Blocks."""
        messages = self._fetch(offset)
        return bool(messages) and _offset(messages[0]) == offset

    def note_deleted(self, events: int) -> None:
        """Note that events which count as stored were deleted; must be done after `replay`.

        They are missing again in the numbers of the frames after them, but count only once. Events
        between them that were filtered out or settled before are not known, and count again.
        """
        self._deleted = max(0, self._deleted + events)

    def _newly_deleted(self, events: int) -> int:
        """Return how many of the events before a frame were deleted and do not count as stored."""
        known = min(events, max(0, self._deleted))
        self._deleted -= known
        return events - known

    def next_frame(self) -> Frame | None:
        """Return the next frame of those that have arrived, or None."""
        if not self._frames:
            return None
        frame, size_bytes = self._frames.popleft()
        self.waiting_bytes -= size_bytes
        return frame

    @property
    def is_empty(self) -> bool:
        """Whether all frames that have arrived were read."""
        return not self._frames

    def take(self, message: TopicMessage) -> Frame | None:
        """Return the frame of a message, or None if it is a copy or is not valid.

        Its `first_number` is the number of events that were deleted before it.
        """
        offset = _offset(message)
        try:
            place, frame = _parsed(message)
        except ValueError as error:
            self.history.skip(offset)
            if messages := self._invalid.add(1):
                self._log.error(
                    "message_invalid", offset=offset, error=str(error), messages=messages
                )
            return None
        reused = len(self.history.reused)
        deleted = self.history.add(offset, place, frame)
        if len(self.history.reused) > reused:
            self._log.error(
                "positions_reused",
                node=place.node.hex(),
                slot=place.slot,
                offset=offset,
                error="two machines use copies of one data directory, or a machine continues from"
                " an old copy; events may be lost: stop that machine, and do not restart it"
                " without deleting its data directory",
            )
        return None if deleted is None else _placed(frame, offset, deleted)


class PartitionReader:
    """Read the frames of the messages that have arrived."""

    def __init__(self, log: PartitionLog) -> None:
        self.is_at_end = False
        self.buffer_bytes = 0
        self._log = log
        self._last: list[Frame] = []
        self._again: list[Frame] = []  # frames that were given back

    def read(self, max_bytes: int = _CHUNK_BYTES) -> list[Frame]:
        frames: list[Frame] = []
        size_bytes = 0
        while len(frames) < _MAX_FRAMES and size_bytes < max_bytes:
            frame = self._again.pop(0) if self._again else self._log.next_frame()
            if frame is None:
                break
            frames.append(frame)
            size_bytes += len(frame.body)
        self.is_at_end = not self._again and self._log.is_empty
        self.buffer_bytes = size_bytes
        self._last = frames
        return list(frames)

    def rewind(self, frame: Frame) -> None:
        again = [each for each in self._last if each.offset >= frame.offset]
        self._again = again + self._again
        self._last = []
        self.is_at_end = False

    def close(self) -> None:
        self._again.clear()


class PartitionRereader:
    """Read frames again that were read before, without the messages in `skipped`."""

    def __init__(self, offset: int, fetch: Fetch, skipped: Container[int]) -> None:
        self.is_at_end = False
        self.buffer_bytes = 0
        self._offset = offset
        self._fetch = fetch
        self._skipped = skipped

    def read(self, max_bytes: int = _CHUNK_BYTES) -> list[Frame]:
        del max_bytes  # as much as one fetch returns
        frames: list[Frame] = []
        while not frames:
            messages = self._fetch(self._offset)
            if not messages:
                self.is_at_end = True
                break
            self._offset = _offset(messages[-1]) + 1
            for each in messages:
                offset = _offset(each)
                if offset not in self._skipped:
                    # A message after those that were read before may hold no frame.
                    with contextlib.suppress(ValueError):
                        frames.append(_placed(_parsed(each)[1], offset, 0))
        self.buffer_bytes = sum(len(each.body) for each in frames)
        return frames

    def rewind(self, frame: Frame) -> None:
        self._offset = frame.offset
        self.is_at_end = False

    def close(self) -> None:
        """Do nothing."""


def _later_version(message: TopicMessage) -> str:
    """Return why this version cannot read a message; "" if it can, or the message is not valid."""
    magic = (message.value() or b"")[: len(FRAME_MAGIC)]
    number, own = magic[3:], FRAME_MAGIC[3:]
    if magic[:3] != FRAME_MAGIC[:3] or not number.isdigit() or number <= own:
        return ""
    return (
        f"a frame of version {number.decode()}; this pixelfast reads version {own.decode()}:"
        " upgrade it"
    )


def _offset(message: TopicMessage) -> int:
    offset = message.offset()
    assert offset is not None, "the message was consumed"
    return offset


def _parsed(message: TopicMessage) -> tuple[FramePlace, Frame]:
    """Return the frame of a message.

    Raises:
        ValueError: the message does not hold exactly one valid frame.
    """
    place = parse_headers(message.headers())
    value = message.value() or b""
    segment = SegmentId(place.node, place.slot, place.segment, UNKNOWN_VERSION)
    frame = parse_frame(memoryview(value), 0, place.offset, segment)
    if not isinstance(frame, Frame) or frame.length != len(value):
        raise ValueError("the value is not the frame that the headers describe")
    return place, frame


def _placed(frame: Frame, offset: int, first_number: int) -> Frame:
    """Return a frame with its position in the partition, where each message is one unit long."""
    return frame._replace(segment=_SEGMENT, offset=offset, length=1, first_number=first_number)
