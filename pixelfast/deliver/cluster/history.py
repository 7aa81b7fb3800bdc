"""Recognizing copies of frames in a partition, by their positions in the slots of collectors.

A collector produces a frame again if it does not know whether the brokers have it. In a partition,
no frame precedes the first copy of an earlier frame of its slot, so every frame that is not beyond
the last one of its slot is a copy.

An exception is a machine that continues from an old copy of its data directory, such as a snapshot:
it uses positions again. Its frames were received later than all before, unlike any copy.
"""

from __future__ import annotations

from collections import deque
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
        copies: how many messages held copies.
        reused: slots in which positions were used again.
        next_offset: the offset after the last message.
    """

    def __init__(self, slots: Mapping[SlotKey, LastFrame], offset: int) -> None:
        """Begin at the message at `offset`; `slots` are the last frames before it."""
        self._committed = dict(slots)
        self._slots = dict(slots)
        self._steps: deque[_Step] = deque()
        self.next_offset = offset
        self._behind_a_gap: set[SlotKey] = set()  # no frame was read since messages were missing
        self.skipped: set[int] = set()
        self.copies = 0
        self.reused: set[SlotKey] = set()

    def add(self, offset: int, place: FramePlace, frame: Frame) -> int | None:
        """Note the frame of the message at `offset`; return None if it is a copy.

        Otherwise return how many events of its slot were deleted before they were read: the
        retention of the topic has removed messages, and event numbers are missing.
        """
        self._reach(offset)
        key = SlotKey(place.node, place.slot)
        last = self._slots.pop(key, None)
        if last is not None and last.is_beyond(place):
            if frame.received_ms <= last.received_ms:
                self._slots[key] = last
                self.skipped.add(offset)
                self.copies += 1
                return None
            self.reused.add(key)
        deleted = 0
        if key in self._behind_a_gap:
            self._behind_a_gap.discard(key)
            if last is not None:
                deleted = max(0, frame.first_number - last.next_number)
        received_ms = max(frame.received_ms, last.received_ms if last is not None else 0)
        last = LastFrame(*place[2:], frame.first_number + frame.events, received_ms)
        self._slots[key] = last  # the last in the order of the dictionary
        self._steps.append(_Step(offset, key, last))
        return deleted

    def skip(self, offset: int) -> None:
        """Note that the message at `offset` holds no frame."""
        self._reach(offset)
        self.skipped.add(offset)

    def _reach(self, offset: int) -> None:
        if offset > self.next_offset:
            self._behind_a_gap = set(self._slots)
        self.next_offset = offset + 1

    def commit(self, offset: int) -> dict[SlotKey, LastFrame]:
        """Return the last frames before `offset`, and forget what only earlier offsets need.

        May run in another thread than `add`.
        """
        while self._steps and self._steps[0].offset < offset:
            _, key, last = self._steps.popleft()
            self._committed.pop(key, None)
            self._committed[key] = last
        self.skipped.difference_update([each for each in self.skipped.copy() if each < offset])
        return dict(self._committed)
