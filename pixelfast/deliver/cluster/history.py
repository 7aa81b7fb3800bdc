"""Recognizing copies of frames in a partition, by their positions in the slots of collectors.

A collector produces a frame again if it does not know whether the brokers have it. Apart from such
copies, the frames of a slot are in order, so every frame that is not beyond the last one of its
slot is a copy.

An exception is a machine that continues from an old copy of its data directory, such as a snapshot:
it reuses positions. Unlike copies, its frames were received later than all frames before them. This
does not recognize all frames of two machines that use copies of one data directory at the same
time. Comparing checksums would not help, because their frames are at different positions, except
for the first one of a segment.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from pixelfast.cluster.message import FramePlace
from pixelfast.deliver.cluster.checkpoint import LastFrame, SlotKey
from pixelfast.spool import Frame

__all__ = ["History"]


class _Step(NamedTuple):
    """The frame of a message, which became the last one of its slot."""

    offset: int
    key: SlotKey
    last: LastFrame


class History:
    """The frames of a partition that were read.

    Attributes:
        skipped: the offsets of messages without a new frame, from the committed offset on.
        passed: how many messages before the committed offset held copies ("duplicate_frames") or
            no frame ("invalid_messages") since the partition was assigned.
        reused: slots in which positions were reused.
        next_offset: the offset after the last message.
        slots: the last frame of each slot that was read.
    """

    def __init__(self, slots: Mapping[SlotKey, LastFrame], offset: int) -> None:
        """Begin at the message at `offset`; `slots` are the last frames before it."""
        self._committed = dict(slots)
        self.slots = dict(slots)
        self._steps: deque[_Step] = deque()
        self.next_offset = offset
        self._behind_a_gap: set[SlotKey] = set()  # no frame was read since messages were missing
        self.skipped: dict[int, str] = {}  # with the name of their total
        self.passed: Counter[str] = Counter()
        self.reused: set[SlotKey] = set()

    def add(self, offset: int, place: FramePlace, frame: Frame) -> int | None:
        """Note the frame of the message at `offset`; return None if it is a copy.

        Otherwise return how many events of its slot were deleted before they were read: the
        retention of the topic has removed messages, and event numbers are missing.
        """
        self._reach(offset)
        key = SlotKey(place.node, place.slot)
        last = self.slots.pop(key, None)
        if last is not None and last.is_beyond(place):
            if frame.received_ms <= last.received_ms:
                self.slots[key] = last
                self.skipped[offset] = "duplicate_frames"
                return None
            self.reused.add(key)
        deleted = 0
        if key in self._behind_a_gap:
            self._behind_a_gap.discard(key)
            if last is not None:
                deleted = max(0, frame.first_number - last.next_number)
        received_ms = max(frame.received_ms, last.received_ms if last is not None else 0)
        last = LastFrame(*place[2:], frame.first_number + frame.events, received_ms)
        self.slots[key] = last  # the last in the order of the dictionary
        self._steps.append(_Step(offset, key, last))
        return deleted

    def skip(self, offset: int) -> None:
        """Note that the message at `offset` holds no frame."""
        self._reach(offset)
        self.skipped[offset] = "invalid_messages"

    def _reach(self, offset: int) -> None:
        if offset > self.next_offset:
            self._behind_a_gap = set(self.slots)
        self.next_offset = offset + 1

    def commit(self, offset: int) -> dict[SlotKey, LastFrame]:
        """Return the last frames before `offset`, and forget what only earlier offsets need.

        May run in another thread than `add`.
        """
        while self._steps and self._steps[0].offset < offset:
            _, key, last = self._steps.popleft()
            self._committed.pop(key, None)
            self._committed[key] = last
        for each in [each for each in self.skipped.copy() if each < offset]:
            self.passed[self.skipped.pop(each)] += 1
        return dict(self._committed)
