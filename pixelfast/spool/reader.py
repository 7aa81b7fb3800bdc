"""Reading a slot from a position on, while its writer continues writing.

Segments are written frame by frame, and the first frame of a segment only after the last one of the
segment before. Therefore, bytes that are not a valid frame are

-   the end of the log so far, as long as no later segment holds a frame: the reader waits there;
-   otherwise the end of the segment if they are zeros or have the mark of another segment;
-   otherwise damage, or what a crash left of a frame that was never acknowledged: the reader copies
    it to the quarantine and continues after it.

A segment may be recycled while a reader has it open, if every destination has read it. Whenever
the reader finds no valid frame, it reads the header again: if the header is that of another
segment, the rest of the old content is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import structlog

from pixelfast.errors import SpoolCorrupt
from pixelfast.spool.datadir import DataDir
from pixelfast.spool.format import (
    SEGMENT_HEADER_BYTES,
    UNKNOWN_VERSION,
    Frame,
    FrameHeader,
    MovedSegment,
    NewerSegment,
    Position,
    SegmentId,
    parse_segment_header,
    segment_name,
)
from pixelfast.spool.frames import (
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    check_frame,
    parse_frame,
    parse_frames,
)
from pixelfast.spool.highwater import read_high_water
from pixelfast.spool.recovery import (
    LOOKS_UNTIL_SEARCH,
    end_of_damage,
    end_of_data,
    is_search_due,
    next_frame_offset,
    quarantine,
)

__all__ = ["Position", "SlotReader"]

_log = structlog.get_logger("spool")
_CHUNK_BYTES = 2**20
_MIN_READ_BYTES = 4096
_GROWTH = 4  # of the next read, if one ended before the log did
_MAX_FRAMES = 256  # of one read: parsing small frames costs more than reading them


class SlotReader:
    """Reads the frames of one slot in order, from a position on.

    `read` returns what is there and does not wait. A read is about as large as what the last one
    found, so that polling the end of a preallocated segment costs no more than the few frames that
    are new.

    Attributes:
        is_at_end: whether the last `read` saw the end of the log, as far as it is written.
        buffer_bytes: memory that the frames of the last `read` keep alive.
        next_number: the number behind the last event that was read; None before the first frame.
        missing_events: numbers that were skipped: of damaged frames, or of events that were never
            acknowledged.
        repeated_events: numbers that occurred twice, after a failed commit that reached the disk
            nevertheless. Their frames are returned like all others.
        damaged_bytes: bytes that were skipped within segments.
        missing_segments: segments that were gone before they had been read.
        newer_segments: segments skipped because a newer program wrote them.
    """

    def __init__(
        self,
        data: DataDir,
        slot: int,
        start: Position,
        *,
        on_damage: Callable[[int, int, int], object] | None = None,
    ) -> None:
        """Read from `start` on.

        Damaged bytes are copied to the quarantine. With `on_damage` nothing is written; it is
        called with the segment's number and where the damaged bytes begin and end.
        """
        self.slot = slot
        self._on_damage = on_damage
        self.damaged_bytes = 0
        self.missing_segments = 0
        self.newer_segments = 0
        self.missing_events = 0
        self.repeated_events = 0
        self.next_number: int | None = None
        self._data = data
        self._number = start.segment
        self._offset = start.offset
        self._identity = SegmentId(data.node, slot, start.segment)
        self._fd = -1
        self._is_checked = start.offset == SEGMENT_HEADER_BYTES  # the offset is within the log
        self._lost_segment = 0  # recycled while it was open, perhaps with unread events; 0: none
        self._newer: set[int] = set()  # segments of a newer version
        self._is_newest = True  # no later segment held a frame when this one was opened
        self._idle_reads = 0  # consecutive, at what may be the end
        self._window_bytes = _MIN_READ_BYTES  # of the next read
        self.is_at_end = False
        self.buffer_bytes = 0

    @property
    def position(self) -> Position:
        """The position at which the next `read` starts."""
        return Position(self._number, self._offset)

    def read(self, most_bytes: int = _CHUNK_BYTES) -> list[Frame]:
        """Return the next frames, at least one and about `most_bytes`; empty if there are none yet.

        Raises:
            SpoolError: the next one is compressed, and the package for that is missing.
        """
        self.is_at_end = False
        while self._fd >= 0 or self._open(self._number):
            if not self._is_checked:
                self._is_checked = True
                self._offset = self._within_log(self._offset)
            frames = self._parse(min(self._window_bytes, most_bytes))
            if frames:
                self._idle_reads = 0
                return frames
            if not self._go_on():
                break
        self.is_at_end = True
        return []

    def read_to_end(self) -> Iterator[Frame]:
        """Yield all frames that are written so far, also those behind damage at the end.

        Raises:
            SpoolError: one is compressed, and the package for that is missing.
        """
        looks = 0
        while looks <= LOOKS_UNTIL_SEARCH:
            frames = self.read()
            looks = 0 if frames else looks + 1
            yield from frames

    def rewind(self, frame: Frame) -> None:
        """Go back to a frame that the last `read` returned; the next `read` returns it again."""
        self._offset = frame.offset
        self.next_number = frame.first_number
        self.is_at_end = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _parse(self, size: int) -> list[Frame]:
        """Return the valid frames in the next `size` bytes, and the first one of any length."""
        view = memoryview(os.pread(self._fd, size, self._offset))
        limits = self._offset, self._identity, _MAX_FRAMES, _CHUNK_BYTES
        frames, used, needed = parse_frames(view, *limits)
        if not frames and FRAME_HEADER_BYTES < needed > len(view):
            # The first frame is longer than what was read.
            view = memoryview(os.pread(self._fd, needed, self._offset))
            frames, used, needed = parse_frames(view, *limits)
        if self._identity.number != self._number:  # the file was moved; positions keep its place
            frames = [each._replace(segment=self._number) for each in frames]
        for each in frames:
            self._count(each)
        self._offset += used
        self.is_at_end = not needed and self._is_newest
        # Bodies that were compressed may be far larger than what was read.
        self.buffer_bytes = max(len(view), sum(len(each.body) for each in frames))
        wanted_bytes = _GROWTH * size if needed and used * _GROWTH > size else 2 * used
        self._window_bytes = min(max(wanted_bytes, _MIN_READ_BYTES), _CHUNK_BYTES)
        return frames

    def _count(self, frame: Frame) -> None:
        """Compare the frame's numbers with the one that should come next."""
        stop = frame.first_number + frame.events
        expected = self.next_number
        if expected is None:
            expected = frame.first_number
        if frame.first_number > expected:
            self.missing_events += frame.first_number - expected
            if self._lost_segment:
                self._note_missing(self._lost_segment)
        else:
            self.repeated_events += min(stop, expected) - frame.first_number
        self.next_number = max(stop, expected)
        self._lost_segment = 0

    def _go_on(self) -> bool:
        """Get past an offset without a valid frame; False if the log may end there."""
        if self._is_recycled():
            self._lost_segment = self._number
            self.close()
            return self._open_after(self._number)
        later = self._later_segment()
        size = os.fstat(self._fd).st_size
        start = self._offset
        stop = size
        if later is None:
            # Frames are written one after the other, so it is damage if one follows this offset.
            self._idle_reads += 1
            if not is_search_due(self._fd, start, self._idle_reads):
                return False
            stop = min(size, start + MAX_FRAME_BYTES)
        found = next_frame_offset(self._fd, self._identity, start, stop)
        if found == start or self._is_frame(start):
            return True  # it was being written when it was read
        if later is None and found is None:
            return False
        end = end_of_damage(self._fd, self._identity, start, stop) if found is None else found
        if end > start:
            self._set_aside(start, end)
        if found is not None:
            self._offset = found
            return True
        assert later is not None
        self.close()
        return self._open(later)

    def _is_recycled(self) -> bool:
        """Return whether the open file has become another segment."""
        header = os.pread(self._fd, SEGMENT_HEADER_BYTES, 0)
        try:
            parse_segment_header(header, self._identity, "")
        except MovedSegment:
            return True
        except SpoolCorrupt:
            pass
        return False

    def _open_after(self, number: int) -> bool:
        later = next((n for n in self._data.segments(self.slot) if n > number), 0)
        return self._open(later) if later else False

    def _set_aside(self, start: int, end: int) -> None:
        if self._on_damage is None:
            folder = self._data.quarantine_dir
            self.damaged_bytes += quarantine(folder, self._fd, self._identity, start, end)
            return
        end = end_of_data(self._fd, start, end)
        if end > start:
            self.damaged_bytes += end - start
            self._on_damage(self._number, start, end)

    def _is_frame(self, offset: int) -> bool:
        data = memoryview(os.pread(self._fd, MAX_FRAME_BYTES, offset))
        return isinstance(parse_frame(data, 0, offset, self._identity), Frame)

    def _within_log(self, offset: int) -> int:
        """Return the offset, or the end of the log if that comes before it.

        The log of a segment never shrinks. If a cursor is beyond its end, the slot was removed and
        created again, and what follows at the end has not been read.
        """
        if self._later_segment() is not None:
            return offset  # nothing is added to this segment
        if self._is_frame(offset):
            return offset
        end = SEGMENT_HEADER_BYTES
        while end < offset:
            data = memoryview(os.pread(self._fd, MAX_FRAME_BYTES, end))
            at = 0  # a read holds thousands of small frames
            while end < offset and isinstance(
                header := check_frame(data, at, end, self._identity), FrameHeader
            ):
                at += header.length
                end += header.length
            if at:
                continue  # the next frame may extend beyond the bytes that were read
            found = next_frame_offset(self._fd, self._identity, end, offset)
            if found is None:
                break
            end = found
        if end < offset:
            _log.error(
                "cursor_beyond_data", slot=self.slot, segment=f"{self._number:x}", offset=offset
            )
        return min(end, offset)

    def _later_segment(self) -> int | None:
        """Return the first segment after the current one, if any after it holds a frame."""
        later = [n for n in self._data.segments(self.slot) if n > self._number]
        return later[0] if any(self._data.has_frame(self.slot, n) for n in later) else None

    def _path(self, number: int) -> str:
        return os.fspath(self._data.slot_dir(self.slot) / segment_name(number))

    def _open(self, number: int) -> bool:
        """Open a segment, or the first one after it if it is gone; False if there is none."""
        newer: set[int] = set()
        while segments := [n for n in self._data.segments(self.slot) if n not in newer]:
            there = next((n for n in segments if n >= number), 0)
            if not there:
                if newer:
                    return False  # the next segments have a newer format
                # Normally, no cursor is ahead of the newest segment: the slot was removed and
                # created again, and nothing in it has been read.
                _log.error("cursor_beyond_data", slot=self.slot, segment=f"{number:x}")
                there = segments[0]
                self.next_number = None
            try:
                self._fd = os.open(self._path(there), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # removed since it was listed
            identity = self._identify(there)
            if identity is None:
                self.close()
                if there in self._newer:
                    newer.add(there)
                continue
            self._identity = identity
            if there != number and number and number not in self._newer and not self._was_drained():
                self._note_missing(number)
            if there != self._number:
                self._number = there
                self._offset = SEGMENT_HEADER_BYTES
                self._is_checked = True
                self._idle_reads = 0
            self._is_newest = self._later_segment() is None
            return True
        return False

    def _note_missing(self, number: int) -> None:
        self.missing_segments += 1
        _log.error("segment_missing", slot=self.slot, segment=f"{number:x}")

    def _was_drained(self) -> bool:
        """Return whether the slot was removed after all up to here had been read."""
        end = read_high_water(self._data, self.slot).end
        return self._number <= end.segment and self.position >= end

    def _identify(self, number: int) -> SegmentId | None:
        """Return which segment the open file is.

        Return None if its version is newer, or if it was recycled since it was opened.
        """
        expected = SegmentId(self._data.node, self.slot, number, UNKNOWN_VERSION)
        try:
            return parse_segment_header(
                os.pread(self._fd, SEGMENT_HEADER_BYTES, 0), expected, segment_name(number)
            )
        except NewerSegment as error:
            if number not in self._newer:
                self._newer.add(number)
                self.newer_segments += 1
                _log.error("segment_format_unsupported", slot=self.slot, error=str(error))
            return None
        except MovedSegment as error:
            if not self._data.is_there(self.slot, number, self._fd):
                return None
            _log.error("segment_moved", slot=self.slot, error=str(error))
            return error.found
        except SpoolCorrupt as error:
            if self._on_damage is not None:
                self._on_damage(number, 0, SEGMENT_HEADER_BYTES)
            _log.error("segment_header_damaged", slot=self.slot, error=str(error))
        return expected
