from pixelfast.spool.format import Frame, FrameHeader, SegmentId

__all__ = [
    "FRAME_END_BYTES",
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "MAX_FRAME_BYTES",
    "MAX_NAME_BYTES",
    "MIN_COMPRESSED_BYTES",
    "check_frame",
    "claimed_bytes",
    "find_frame",
    "parse_frame",
    "parse_frames",
    "parse_header",
    "rfind_frame",
]

FRAME_MAGIC: bytes
FRAME_HEADER_BYTES: int
FRAME_END_BYTES: int
"""How many zeros follow a commit."""
MAX_NAME_BYTES: int
"""The longest name of a source."""
MAX_FRAME_BYTES: int
MIN_COMPRESSED_BYTES: int
"""Smaller bodies are not compressed: they gain too little."""

def parse_header(data: memoryview, start: int, segment: SegmentId) -> FrameHeader | None:
    """Return the header at data[start:] if it can be that of a frame of `segment`, otherwise None.

    The mark and the lengths are checked; the checksum is not verified.

    Raises:
        ValueError: `data` is shorter than a header.
    """

def claimed_bytes(data: memoryview, start: int, segment: SegmentId) -> int:
    """Return the length of the damaged frame at data[start:], or 0 if `segment` has none there.

    A frame of the segment has its mark. If its length is damaged too, return that of a header.

    >>> from pixelfast.spool.format import SegmentId
    >>> claimed_bytes(memoryview(bytes(64)), 0, SegmentId(bytes(16), 0, 1))
    0
    """

def find_frame(data: memoryview, offset: int, segment: SegmentId, stop: int) -> int:
    """Return where in `data` the first valid frame before `stop` starts, or -1 if there is none.

    The frame is completely within `data`. `offset` is the offset of `data` in the segment.

    Raises:
        SpoolError: the body is compressed, and the package for that is missing.
    """

def rfind_frame(
    data: memoryview, offset: int, segment: SegmentId, stop: int
) -> tuple[int, FrameHeader] | None:
    """Return where in `data` the last valid frame before `stop` starts, and its header.

    A frame that `data` holds only in part, with its whole header, is returned without a check of
    its checksum. Bodies are not decompressed. `offset` is the offset of `data` in the segment.
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
