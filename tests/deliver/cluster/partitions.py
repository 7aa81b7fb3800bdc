"""A partition in memory, and collectors that produce frames to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pixelfast.cluster.message import WHOLE, FramePlace, pack_headers
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, SegmentId

__all__ = ["Message", "Partition", "Produced", "Slot"]

RECEIVED_MS = 1_770_000_000_000


@dataclass(slots=True)
class Produced:
    """A message to produce: the headers and the frame."""

    headers: list[Any]
    value: bytes


@dataclass(slots=True)
class Message:
    """A message as a consumer returns it."""

    place: int
    produced: Produced

    def offset(self) -> int:
        return self.place

    def value(self) -> bytes:
        return self.produced.value

    def headers(self) -> list[Any]:
        return list(self.produced.headers)


@dataclass
class Slot:
    """A slot of a collector: the frames that it has written."""

    node: bytes
    number: int = 0
    segment: int = 1
    offset: int = SEGMENT_HEADER_BYTES
    events: int = 0
    received_ms: int = RECEIVED_MS

    def frame(self, *events: bytes, source: str = "web", part: int = WHOLE) -> Produced:
        """Write a frame, and return its message."""
        batch = CommitBatch()
        for each in events:
            batch.add(0, each, self.received_ms)
        segment = SegmentId(self.node, self.number, self.segment)
        batch.seal([source.encode()], segment, self.offset, self.events)
        place = FramePlace(self.node, self.number, self.segment, self.offset, part)
        value = batch.sealed()
        self.offset += len(value)
        self.events += len(events)
        return Produced(pack_headers(place), value)

    def next_segment(self) -> None:
        self.segment += 1
        self.offset = SEGMENT_HEADER_BYTES


@dataclass
class Partition:
    """The messages of a partition; `start` is the offset of the first one that retention kept."""

    messages: list[Message] = field(default_factory=list)
    start: int = 0
    fetches: int = 3  # messages in one fetch

    def produce(self, *produced: Produced) -> None:
        for each in produced:
            self.messages.append(Message(len(self.messages), each))

    def fetch(self, offset: int) -> Sequence[Message]:
        first = max(offset, self.start)
        return self.messages[first : first + self.fetches]
