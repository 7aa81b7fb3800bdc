"""Damage on the disk: find the valid frames after it, and copy the damaged bytes.

Nothing here writes to a segment or truncates it: every reader skips the damage itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import ENXIO
from pathlib import Path

import structlog

from pixelfast.spool.format import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
    SegmentId,
)
from pixelfast.spool.frames import (
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    claimed_bytes,
    find_frame,
)

__all__ = [
    "LOOKS_UNTIL_SEARCH",
    "data_ranges",
    "end_of_damage",
    "end_of_data",
    "is_search_due",
    "next_frame_offset",
    "quarantine",
]

_log = structlog.get_logger("spool")
_WINDOW_BYTES = 4 * 2**20
LOOKS_UNTIL_SEARCH = 64


def is_search_due(fd: int, offset: int, looks: int) -> bool:
    """Return whether to search behind an offset that held no frame in `looks` consecutive looks.

    True at the second look, because the writer may be in the middle of a frame at the first; then
    once in `LOOKS_UNTIL_SEARCH` looks. Only then are zeros searched, because they are hardly ever
    damage.
    """
    if looks == 2:
        return any(os.pread(fd, 8, offset))
    return looks % LOOKS_UNTIL_SEARCH == 0


def next_frame_offset(
    fd: int, segment: SegmentId, start: int, stop: int, *, window_bytes: int = _WINDOW_BYTES
) -> int | None:
    """Return the offset of the first valid frame at or after `start` and before `stop`.

    Checks every offset that is a multiple of 8, because frames begin only there, in the parts that
    were written; preallocated parts read as zeros. `window_bytes` is how much is read at once.
    """
    for begin, end in data_ranges(fd, max(start, SEGMENT_HEADER_BYTES)):
        offset, last = begin, min(end, stop)
        while offset < last:
            window = min(window_bytes, last - offset)
            data = memoryview(os.pread(fd, window + MAX_FRAME_BYTES, offset))
            found = find_frame(data, offset, segment, window) if data else -1
            if found >= 0:
                return offset + found
            offset += window
        if end >= stop:
            break
    return None


def data_ranges(fd: int, start: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file behind `start` that were written."""
    stop = start
    size = os.fstat(fd).st_size
    while stop < size:
        try:
            begin = os.lseek(fd, stop, os.SEEK_DATA)
            stop = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == ENXIO:  # only a hole is left, or the file was truncated meanwhile
                return
            raise
        yield begin, stop


def end_of_damage(fd: int, segment: SegmentId, start: int, stop: int) -> int:
    """Return where the damage at `start` ends if no valid frame follows before `stop`.

    A frame that was cut off ends at its own length; older data may follow it. Bytes without a
    header of this segment are not damage. In segments of format 1, which were never recycled,
    everything up to `stop` is damage.
    """
    if segment.version != FORMAT_VERSION:
        return stop
    end = start
    while end < stop:
        header = memoryview(os.pread(fd, FRAME_HEADER_BYTES, end))
        claimed = claimed_bytes(header, 0, segment) if header else 0
        if not claimed:
            return end
        end = min(end + claimed, stop)
    return end


def quarantine(folder: Path, fd: int, segment: SegmentId, start: int, stop: int) -> int:
    """Copy the bytes [start, stop) of a segment to the quarantine, without the zeros at their end.

    Return how many bytes were damaged; 0 if there were only zeros, so that nothing was lost. The
    copy is complete and is made only once, even if several readers find the same damage.
    """
    end = end_of_data(fd, start, stop)
    path = folder / f"{segment.slot}-{segment.number:016x}-{start:08x}.bad"
    if end > start and not path.exists():
        _log.error(
            "damage_quarantined",
            slot=segment.slot,
            segment=f"{segment.number:x}",
            offset=start,
            bytes=end - start,
            copy=path.name,
        )
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            with temporary.open("wb") as copy:
                for offset in range(start, end, _WINDOW_BYTES):
                    copy.write(os.pread(fd, min(_WINDOW_BYTES, end - offset), offset))
            temporary.replace(path)
        except OSError as error:
            _log.error("quarantine_failed", copy=path.name, error=str(error))
            temporary.unlink(missing_ok=True)
    return end - start


def end_of_data(fd: int, start: int, stop: int) -> int:
    """Return where the zeros begin that a range ends with."""
    while stop > start:
        begin = max(start, stop - _WINDOW_BYTES)
        data = os.pread(fd, stop - begin, begin).rstrip(b"\0")
        if data:
            return begin + len(data)
        stop = begin
    return start
