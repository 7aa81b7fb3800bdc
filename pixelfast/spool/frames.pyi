from collections.abc import Callable
from typing import Any

from pixelfast.spool.format import Frame, FrameHeader, SegmentId

__all__ = [
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "MAX_FRAME_BYTES",
    "MAX_NAME_BYTES",
    "MIN_COMPRESSED_BYTES",
    "CommitBatch",
    "check_frame",
    "parse_frame",
    "parse_frames",
    "parse_header",
]

FRAME_MAGIC: bytes
FRAME_HEADER_BYTES: int
MAX_NAME_BYTES: int
"""The longest name of a source."""
MAX_FRAME_BYTES: int
MIN_COMPRESSED_BYTES: int
"""Smaller bodies are not compressed: they gain too little."""

def parse_header(data: memoryview, start: int) -> FrameHeader | None:
    """Return the header at data[start:] if its lengths can be those of a frame, otherwise None.

    The checksum is not verified.

    Raises:
        ValueError: `data` is shorter than a header.
    """

def check_frame(
    data: memoryview, start: int, offset: int, segment: SegmentId
) -> FrameHeader | int | None:
    """Check the frame at data[start:], which is `offset` bytes into its segment.

    Return its header, or None if there is no valid frame. If `data` ends too early to decide,
    return how many bytes it must have from `start` on.

    >>> from pixelfast.spool.format import SegmentId
    >>> segment = SegmentId(bytes(16), 0, 1)
    >>> check_frame(memoryview(b"PXF1"), 0, 64, segment)
    48
    >>> check_frame(memoryview(bytes(64)), 0, 64, segment) is None
    True
    """

def parse_frame(
    data: memoryview, start: int, offset: int, segment: SegmentId
) -> Frame | int | None:
    """Do the same as `check_frame`, but return the whole frame.

    The frame's body is a view of `data` unless it is compressed.

    Raises:
        SpoolError: the body is compressed, and the package for that is missing.
    """

def parse_frames(
    data: memoryview, offset: int, segment: SegmentId, most_frames: int, most_bytes: int
) -> tuple[list[Frame], int, int]:
    """Read the consecutive frames in `data`, which begins `offset` bytes into their segment.

    Read at most `most_frames`, and end after `most_bytes` of bodies.

    Return the frames, their total length, and how many bytes after them are needed to continue, or
    0 if no valid frame follows.

    Raises:
        SpoolError: the first body is compressed, and the package for that is missing.
    """

class CommitBatch:
    """The events of one group commit, collected by the writer and sealed into frames.

    >>> batch = CommitBatch()
    >>> batch.add(0, b'{"n":1}', 1700000000000)
    >>> len(batch), batch.event_bytes
    (1, 8)
    >>> from pixelfast.spool.format import SegmentId
    >>> segment = SegmentId(bytes(16), 0, 1)
    >>> length = batch.seal([b"web"], segment, 64)
    >>> frame = parse_frame(memoryview(batch.sealed()), 0, 64, segment)
    >>> frame.source, frame.events, bytes(frame.body)
    ('web', 1, b'{"n":1}\\n')
    """

    waiters: list[Any]
    first_ticket: int
    since_s: float
    has_failed: bool

    def __len__(self) -> int: ...
    @property
    def event_bytes(self) -> int:
        """The size of the events, each with its line feed, in bytes."""

    def add(self, source: int, event: bytes, received_ms: int = 0) -> None:
        """Add one event's JSON; `source` is its index in the names passed to `seal`."""

    def sealed_bytes(self, names: list[bytes]) -> int:
        """Return the maximum size of the frames that `seal` makes of this batch."""

    def seal(
        self,
        names: list[bytes],
        segment: SegmentId,
        offset: int,
        first_number: int = 0,
        compress: Callable[[memoryview], bytes] | None = None,
    ) -> int:
        """Make frames, one for each source, for `offset` of `segment`; return their length.

        Events are numbered from `first_number` on, in their order in the frames. Bodies of
        `MIN_COMPRESSED_BYTES` or more are compressed by `compress` if that makes them smaller. A
        batch may be sealed again for another place.
        """

    def sealed(self) -> bytes:
        """Return a copy of the frames; empty before `seal`."""

    def clear(self) -> None:
        """Remove all events and frames."""
