from pixelfast.spool.format import Frame, FrameHeader, SegmentId

def parse_header(data: memoryview, start: int) -> FrameHeader | None:
    """Return the header at data[start:] if its lengths can be those of a frame, else None.

    Does not look at the checksum.

    Raises:
        ValueError: `data` holds less than a whole header.
    """

def check_frame(
    data: memoryview, start: int, offset: int, segment: SegmentId
) -> FrameHeader | int | None:
    """Check the frame that stands at data[start:], `offset` bytes into its segment.

    Returns its header; or, if `data` ends too early to tell, how many bytes it must hold from
    `start` on; or None if there is no valid frame.

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
    """Read the frame that stands at data[start:]; what it returns is as of `check_frame`.

    The frame's body is a view of `data` unless it is compressed.

    Raises:
        SpoolError: the body is compressed, and the package for that is missing.
    """

def parse_frames(
    data: memoryview, offset: int, segment: SegmentId, most_frames: int, most_bytes: int
) -> tuple[list[Frame], int, int]:
    """Read the frames that stand one after the other in `data`, `offset` bytes into their segment.

    Reads at most `most_frames`, and ends after `most_bytes` of bodies.

    Returns the frames; how many bytes of `data` they are; and 0 if no valid frame follows, else how
    many bytes from there on it takes to go on.

    Raises:
        SpoolError: the first body is compressed, and the package for that is missing.
    """
