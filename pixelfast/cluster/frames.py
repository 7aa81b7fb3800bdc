"""Makes the values of messages from the frames of a segment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pixelfast.cluster.message import WHOLE, FramePlace
from pixelfast.spool import DataDir, Frame, Position
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SegmentId, segment_name
from pixelfast.spool.frames import check_frame, parse_frame, parse_header

__all__ = ["LogFrame", "frames_of_image", "parts_of", "read_frames"]

_PART_BYTES = 2**16  # maximum size of a part's events; must never change


class LogFrame(NamedTuple):
    """A frame and its position.

    Attributes:
        value: the frame as it is in its segment; empty if readers of the topic could not check it,
            because its segment was moved or has an older format.
        frame: the frame with its body, if it was read from the disk.
    """

    segment: int
    offset: int
    length: int
    received_ms: int
    value: bytes
    frame: Frame | None = None

    @property
    def end(self) -> Position:
        return Position(self.segment, self.offset + self.length)


def frames_of_image(segment: SegmentId, offset: int, image: bytes) -> Iterator[LogFrame]:
    """Yield the frames of a commit, which begins at an offset of a segment."""
    view = memoryview(image)
    at = 0
    while at < len(image):
        header = parse_header(view, at, segment)
        assert header is not None, "a commit consists of frames"
        value = image if header.length == len(image) else image[at : at + header.length]
        yield LogFrame(segment.number, offset + at, header.length, header.received_ms, value)
        at += header.length


def read_frames(data: DataDir, slot: int, frames: Iterable[Frame]) -> list[LogFrame]:
    """Return frames that were read from a slot, with their bytes. Blocks for the disk."""
    found = []
    fd, opened = -1, -1
    try:
        for each in frames:
            if each.segment != opened:
                if fd >= 0:
                    os.close(fd)
                path = data.slot_dir(slot) / segment_name(each.segment)
                fd, opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC), each.segment
            value = os.pread(fd, each.length, each.offset)
            place = SegmentId(data.node, slot, each.segment)
            if isinstance(check_frame(memoryview(value), 0, each.offset, place), int | None):
                value = b""
            found.append(
                LogFrame(each.segment, each.offset, each.length, each.received_ms, value, each)
            )
    finally:
        if fd >= 0:
            os.close(fd)
    return found


def parts_of(
    frame: LogFrame, node: bytes, slot: int, max_bytes: int
) -> Iterator[tuple[FramePlace, bytes]]:
    """Yield the messages of a frame: one if it fits into `max_bytes`, otherwise its parts.

    A part has at least one event. The parts do not depend on `max_bytes`, so that a later attempt
    with another limit makes the same ones.
    """
    place = FramePlace(node, slot, frame.segment, frame.offset, WHOLE)
    if frame.value and len(frame.value) <= max_bytes:
        yield place, frame.value
        return
    segment = SegmentId(node, slot, frame.segment)
    whole = frame.frame
    if whole is None:
        parsed = parse_frame(memoryview(frame.value), 0, frame.offset, segment)
        assert isinstance(parsed, Frame), "a commit consists of frames"
        whole = parsed
    name = whole.source.encode("ascii")
    number = whole.first_number
    for part, lines in enumerate(_chunks(whole.body)):
        batch = CommitBatch()
        for line in lines:
            batch.add(0, line, whole.received_ms)
        batch.seal([name], segment, frame.offset, number)
        yield place._replace(part=part), batch.sealed()
        number += len(lines)


def _chunks(body: memoryview) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for line in bytes(body).split(b"\n")[:-1]:
        if chunk and size + len(line) + 1 > _PART_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line) + 1
    if chunk:
        yield chunk
