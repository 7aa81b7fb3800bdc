"""The end of a slot's log: found once from the back, then followed by the headers of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from pixelfast.spool.datadir import DataDir
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, Frame, FrameHeader, Position, SegmentId
from pixelfast.spool.frames import (
    FRAME_HEADER_BYTES,
    check_frame,
    parse_frame,
    parse_header,
    rfind_frame,
)
from pixelfast.spool.highwater import read_high_water
from pixelfast.spool.recovery import data_ranges, is_search_due, next_frame_offset

__all__ = [
    "LogEnd",
    "Place",
    "first_frame",
    "last_frame",
    "newest_frame",
    "newest_frames",
    "number_at",
]

_WINDOW_BYTES = 256 * 2**10
_HEADERS_BYTES = 16 * 2**10
_NEWEST_BYTES = 256 * 2**10


class Place(NamedTuple):
    """A valid frame, as its header describes it."""

    segment: int  # number
    offset: int
    header: FrameHeader

    @property
    def end(self) -> Position:
        """The position behind the frame."""
        return Position(self.segment, self.offset + self.header.length)

    @property
    def next_number(self) -> int:
        """The number behind the frame's last event."""
        return self.header.first_number + self.header.events


class LogEnd:
    """Follows the end of a slot's log: how far a reader can read, and how many events that is.

    Reads the headers of the frames that were added since the last call and checks the last frame.
    Frames may not be synced yet, so the end may be ahead of the acknowledged events.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LogEnd(DataDir.open(folder), 0).refresh()
    (Position(segment=0, offset=64, skip=0), 0)
    """

    def __init__(self, data: DataDir, slot: int) -> None:
        self.slot = slot
        self._data = data
        self._end = Position()
        self._next_number = 0
        self._is_known = False
        self._stuck = 0  # consecutive refreshes that ended at the same invalid bytes

    def refresh(self) -> tuple[Position, int]:
        """Return the position behind the newest event, and the number that the next one gets.

        Reads through the page cache; the first call searches the newest segment that holds a frame,
        from its end.
        """
        written = self._data.newest_written(self.slot)
        if not self._is_known or 0 < written < self._end.segment:
            # It is not known yet, or the slot was removed by hand and created again.
            self._is_known = True
            record = read_high_water(self._data, self.slot)
            self._end, self._next_number = record.end, record.next_number
            self._take(newest_frame(self._data, self.slot))
        elif written:
            self._walk(written)
        return self._end, self._next_number

    def _take(self, place: Place | None) -> None:
        if place is not None:
            self._end, self._next_number = place.end, place.next_number

    def _walk(self, number: int) -> None:
        """Follow the headers of a segment's frames."""
        is_same = number == self._end.segment
        start = self._end.offset if is_same else SEGMENT_HEADER_BYTES
        with self._data.open_segment(self.slot, number) as opened:
            if opened is None:
                return  # removed since it was listed
            fd, identity = opened
            last = before = None
            for offset, header in _headers(fd, identity, start):
                last, before = (offset, header), last
            if last and not _is_valid(fd, identity, *last):
                # It is being written, or damaged. The frame before it was complete when it began.
                last = before
            if last:
                place = Place(number, *last)
                start = place.end.offset
                self._take(place)
            self._pass_damage(fd, identity, start, number)

    def _pass_damage(self, fd: int, identity: SegmentId, offset: int, number: int) -> None:
        """Search behind bytes that remain invalid, when `recovery` says so."""
        if not any(os.pread(fd, 8, offset)):
            self._stuck = 0
            return
        self._stuck += 1
        if is_search_due(fd, offset, self._stuck):
            place = last_frame(fd, identity, offset)
            self._take(place._replace(segment=number) if place else None)


def newest_frame(data: DataDir, slot: int) -> Place | None:
    """Return the last valid frame of a slot, or None if there is none.

    Searches from the end of the newest segment, and older ones only if that has no frame.
    """
    for number in reversed(data.segments(slot)):
        if not data.has_frame(slot, number):
            continue
        with data.open_segment(slot, number) as opened:
            place = last_frame(*opened) if opened else None
            if place is not None:
                return place._replace(segment=number)
    return None


def newest_frames(data: DataDir, slot: int) -> list[Frame]:
    """Return the last frames of the newest segment that has any: about 256 KiB, at least one.

    Raises:
        SpoolError: one is compressed, and the package for that is missing.
    """
    place = newest_frame(data, slot)
    if place is None:
        return []
    with data.open_segment(slot, place.segment) as opened:
        if opened is None:
            return []  # removed since it was found
        fd, identity = opened
        stop = place.end.offset
        offset = next_frame_offset(fd, identity, (stop - _NEWEST_BYTES) & ~7, stop)
        frames: list[Frame] = []
        start = place.offset if offset is None else min(offset, place.offset)
        view = memoryview(os.pread(fd, stop - start, start))
        offset = start
        while offset < stop:
            frame = parse_frame(view, offset - start, offset, identity)
            if not isinstance(frame, Frame):
                break
            frames.append(frame._replace(segment=place.segment))
            offset += frame.length
        return frames


def first_frame(data: DataDir, slot: int, number: int) -> FrameHeader | None:
    """Return the header of the first valid frame of a segment, or None if it has none."""
    with data.open_segment(slot, number) as opened:
        if opened is None:
            return None
        fd, identity = opened
        size = os.fstat(fd).st_size
        offset = next_frame_offset(fd, identity, SEGMENT_HEADER_BYTES, size)
        return None if offset is None else _header_at(fd, identity, offset)


def number_at(data: DataDir, slot: int, position: Position) -> int | None:
    """Return the number of the event at a position, or of the first one behind it.

    None behind the end of the log. The difference to the number at the end of the log is how many
    events a destination with this cursor has not read.
    """
    for number in data.segments(slot):
        if number < position.segment:
            continue
        if number > position.segment:
            header = first_frame(data, slot, number)
        else:
            with data.open_segment(slot, number) as opened:
                header = _header_at(*opened, position.offset) if opened else None
            if header is not None:
                return header.first_number + min(position.skip, header.events)
        if header is not None:
            return header.first_number
    return None


def _header_at(fd: int, segment: SegmentId, offset: int) -> FrameHeader | None:
    data = os.pread(fd, FRAME_HEADER_BYTES, offset)
    return parse_header(memoryview(data), 0, segment) if len(data) == FRAME_HEADER_BYTES else None


def last_frame(
    fd: int,
    segment: SegmentId,
    start: int = SEGMENT_HEADER_BYTES,
    *,
    window_bytes: int = _WINDOW_BYTES,
) -> Place | None:
    """Return the last valid frame of a segment at or behind `start`, a multiple of 8.

    `segment` identifies the segment, from which its checksums start. `window_bytes` is the number
    of bytes that are read at once.
    """
    for begin, stop in reversed(list(data_ranges(fd, start))):
        while stop > begin:
            window = max(begin, stop - window_bytes)
            data = memoryview(os.pread(fd, stop - window + FRAME_HEADER_BYTES, window))
            limit = stop - window
            while data and (found := rfind_frame(data, window, segment, limit)):
                limit, header = found
                at = window + limit
                if limit + header.length <= len(data) or _is_valid(fd, segment, at, header):
                    return Place(segment.number, at, header)
            stop = window
    return None


def _headers(fd: int, segment: SegmentId, offset: int) -> Iterator[tuple[int, FrameHeader]]:
    """Yield the segment's headers from `offset` on, each where the one before it ends."""
    base = offset
    view = memoryview(b"")
    while True:
        if offset - base + FRAME_HEADER_BYTES > len(view):
            base, view = offset, memoryview(os.pread(fd, _HEADERS_BYTES, offset))
            if len(view) < FRAME_HEADER_BYTES:
                return
        header = parse_header(view, offset - base, segment)
        if header is None:
            return
        yield offset, header
        offset += header.length


def _is_valid(fd: int, segment: SegmentId, offset: int, header: FrameHeader) -> bool:
    data = memoryview(os.pread(fd, header.length, offset))
    return isinstance(check_frame(data, 0, offset, segment), FrameHeader)
