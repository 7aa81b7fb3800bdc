"""The spool's format on disk, version 2. This text is its specification.

Segment headers are read and written here, frames in `frames`, which also has their limits.

All numbers are little-endian. A data directory holds::

    META                          JSON: {"format": 2, "node": 32 hex digits}
    clock                         JSON: jumps of the wall clock that delivery has noticed
    LOCK                          held (flock) by the process that owns the directory
    shards/<slot>/writer.lock     held by the collector that writes into this slot
    shards/<slot>/%016x.seg       segments, numbered upwards from 1; no number is ever used twice
    shards/<slot>/%016x.spare     segments that every destination has read, to be recycled
    shards/<slot>.last            JSON: the highest numbers of a slot that was read and removed
    shards/retention.lock         held by the process that removes and recycles segments
    dest/<name>/{lock, state.db}  one destination's cursors
    quarantine/                   copies of damaged bytes

A **segment** starts with a header of 64 bytes::

    offset  size  field
         0     8  magic "pixelfst"
         8     2  version (2)
        10     2  slot
        12     4  reserved (0)
        16    16  node
        32     8  segment number
        40     8  created, ms since 1970
        48    12  reserved (0)
        60     4  crc32 of bytes 0 to 59

In every version the magic, the version and the checksum are in the same place, so segments of a
newer version are recognized: they are neither read nor removed. A header that is intact and names
this node but another slot or segment belongs to a file that was moved, and the checksums of its
frames start from what the header says. If the header is damaged, they start from the file's place.

The header is followed by **frames**, each at an offset that is a multiple of 8. A frame holds what
one source sent within one group commit::

    offset  size  field
         0     4  magic "PXF1"
         4     4  total length, a multiple of 8, from the magic to the end of the padding
         8     4  crc32, see below
        12     1  type: 1, events
        13     1  codec of the body: 0, none; 1, zstd (RFC 8878) with its content size
        14     2  length of the source's name, 1 to 63
        16     4  count of events, 1 or more
        20     4  length of the body as stored
        24     4  length of the body as NDJSON
        28     4  mark: the low 32 bits of the segment number; 0 in version 1
        32     8  when the first of the events was received, ms since 1970
        40     8  number of the first of the events
        48     …  the source's name, ASCII
         …     …  the body
         …   0-7  padding, zeros

The body is NDJSON: each event is one JSON text in UTF-8 and a line feed. JSON never contains a raw
line feed, so the body can be divided at line feeds.

Events are **numbered** within their slot, from 0, in the order of the log; no number is given to
two events. Numbers that are skipped belong to events that were never acknowledged, or to damaged
frames. A commit that failed is written once more, to a new segment, with the same numbers: if the
first one did reach the disk, its events are read twice.

The crc32 (of zlib) covers bytes 0 to 7 and 12 to the end, and starts from the crc32 of (node, slot,
segment number, offset of the frame). A frame is therefore valid only where it was written: neither
an old block nor one that the disk put elsewhere is taken for data.

**Segments are recycled.** Delivery renames a segment that every destination has read from
`N.seg` to `N.spare`, after the cursors are on the disk. Only the slot's writer uses a spare: it
syncs the directory, writes the header of segment M and 48 zero bytes at offset 64, syncs the file,
renames it to `M.seg` and syncs the directory. The old content of segment N is then after the end of
M's log. Each commit ends with 48 zero bytes, or with fewer at the end of the segment, which the
next commit overwrites. A segment is not recycled if a write or sync of it failed, if it was moved
or damaged, or if its version is older. A segment that was closed cleanly ends after its last frame;
it is recycled if it has at least 15/16 of the length of a segment, and less than all of it.

The log of a segment ends at the first offset that holds zeros instead of a magic, or bytes with the
mark of another segment, which are older. Anything else is damage: readers skip to the next valid
frame. They also do this at the end of the log, in case a power failure lost a commit that had not
been synced, but not the next one. A frame that a crash cut off is damaged up to its own length.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from zlib_ng.zlib_ng import crc32

from pixelfast.errors import SpoolCorrupt

__all__ = [
    "FORMAT_VERSION",
    "MAX_SLOT",
    "OLDEST_VERSION",
    "SEGMENT_HEADER_BYTES",
    "UNKNOWN_VERSION",
    "Frame",
    "FrameHeader",
    "MovedSegment",
    "NewerSegment",
    "Position",
    "SegmentId",
    "is_recyclable_size",
    "pack_segment_header",
    "parse_segment_header",
    "segment_name",
    "segment_number",
    "spare_name",
]

FORMAT_VERSION = 2
OLDEST_VERSION = 1  # the oldest that is read
UNKNOWN_VERSION = 0  # of a segment whose header is damaged
SEGMENT_MAGIC = b"pixelfst"
SEGMENT_HEADER_BYTES = 64
MAX_SLOT = 0xFFFF

_SEGMENT_HEADER = struct.Struct("<8sHHI16sQQ12xI")
_PLACE = struct.Struct("<16sHQ")


class SegmentId(NamedTuple):
    """The identity of a segment, from which the checksums and the mark of its frames follow."""

    node: bytes
    slot: int
    number: int
    version: int = FORMAT_VERSION  # `UNKNOWN_VERSION`: any that is read

    def seed_base(self) -> int:
        """Return the crc32 of (node, slot, segment number): see the specification."""
        return crc32(_PLACE.pack(self.node, self.slot, self.number))

    def mark(self) -> int:
        """Return the mark of the segment in the headers of its frames; 0 in version 1."""
        return 0 if self.version == OLDEST_VERSION else self.number & 0xFFFF_FFFF


class Position(NamedTuple):
    """A place in a slot: before event `skip` of the frame at `offset` of a segment.

    Positions of one slot compare in the order of its events. Segment 0 is before all segments.
    """

    segment: int = 0
    offset: int = SEGMENT_HEADER_BYTES
    skip: int = 0


class FrameHeader(NamedTuple):
    """The header of a frame, which precedes the source's name and the body."""

    length: int  # bytes of the frame, including header and padding
    checksum: int
    codec: int
    name_bytes: int
    events: int
    stored_bytes: int  # the body as it stands in the frame
    body_bytes: int  # the body as NDJSON
    received_ms: int
    first_number: int


class Frame(NamedTuple):
    """One valid frame: its place, its source and its events."""

    segment: int  # number
    offset: int  # bytes from the start of the segment
    length: int  # bytes, including header and padding
    source: str
    events: int  # how many
    received_ms: int  # of the first event
    first_number: int  # of the first event, within the slot
    body: memoryview  # NDJSON, decompressed; keeps the buffer alive that it was read into


def segment_name(number: int) -> str:
    """Return a segment's file name.

    >>> segment_name(255)
    '00000000000000ff.seg'
    """
    return f"{number:016x}.seg"


def spare_name(number: int) -> str:
    """Return the file name of a spare that was segment `number`.

    >>> spare_name(255)
    '00000000000000ff.spare'
    """
    return f"{number:016x}.spare"


def segment_number(name: str, ending: str = "seg") -> int | None:
    """Return the number in a segment's file name, or None if it does not name a segment.

    Spares have the `ending` "spare".

    >>> segment_number("00000000000000ff.seg"), segment_number("writer.lock")
    (255, None)
    """
    stem, _, found = name.partition(".")
    if len(stem) != 16 or found != ending or stem.strip("0123456789abcdef"):
        return None
    return int(stem, 16)


def is_recyclable_size(size_bytes: int, segment_bytes: int) -> bool:
    """Return whether a file of this size was closed cleanly by its writer, and nearly full.

    After a failure or a crash, a file has its whole preallocated length, or is shorter.
    """
    return segment_bytes - segment_bytes // 16 <= size_bytes < segment_bytes


def pack_segment_header(segment: SegmentId, created_ms: int) -> bytes:
    """Return the 64 bytes that a segment starts with."""
    head = _SEGMENT_HEADER.pack(
        SEGMENT_MAGIC,
        segment.version,
        segment.slot,
        0,
        segment.node,
        segment.number,
        created_ms,
        0,
    )[:-4]
    return head + struct.pack("<I", crc32(head))


def parse_segment_header(header: bytes, expected: SegmentId, name: str) -> SegmentId:
    """Check a segment's header against the place where it was found; return its segment.

    Raises:
        NewerSegment: it has a version that this program does not know.
        MovedSegment: it is intact, of this node, and of another place.
        SpoolCorrupt: it is missing, damaged, or of another node.
    """
    if len(header) < SEGMENT_HEADER_BYTES or header[:8] != SEGMENT_MAGIC:
        raise SpoolCorrupt(name, 0, "no segment header")
    _, version, slot, _, node, number, _, checksum = _SEGMENT_HEADER.unpack_from(header)
    if checksum != crc32(header[: SEGMENT_HEADER_BYTES - 4]):
        raise SpoolCorrupt(name, 0, "the segment header's checksum is wrong")
    if not OLDEST_VERSION <= version <= FORMAT_VERSION:
        why = f"format version {version}, this program reads up to {FORMAT_VERSION}"
        raise (NewerSegment if version > FORMAT_VERSION else SpoolCorrupt)(name, 0, why)
    found = SegmentId(node, slot, number, version)
    if found[:3] != expected[:3]:
        why = f"it belongs elsewhere: node {node.hex()}, slot {slot}, segment {number:x}"
        if node != expected.node:
            raise SpoolCorrupt(name, 0, why)
        raise MovedSegment(name, 0, why, found)
    return found


class NewerSegment(SpoolCorrupt):
    """A segment that a newer program wrote: not damaged, but not readable here."""


class MovedSegment(SpoolCorrupt):
    """A segment that has another segment's name; `found` identifies it."""

    def __init__(self, segment: str, position: int, why: str, found: SegmentId) -> None:
        super().__init__(segment, position, why)
        self.found = found
