"""The format on disk: names, headers and frames, compared with bytes from the specification."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelfast.errors import SpoolCorrupt
from pixelfast.spool.format import (
    UNKNOWN_VERSION,
    Frame,
    SegmentId,
    pack_segment_header,
    parse_segment_header,
    segment_name,
    segment_number,
)
from pixelfast.spool.frames import (
    MAX_FRAME_BYTES,
    claimed_bytes,
    find_frame,
    parse_frame,
    rfind_frame,
)

NODE = bytes(range(16))
SEGMENT = SegmentId(NODE, 3, 7)


def build_frame(
    source: bytes = b"web",
    body: bytes = b'{"n":1}\n',
    *,
    count: int = 1,
    received_ms: int = 0,
    segment: SegmentId = SEGMENT,
    offset: int = 64,
    kind: int = 1,
    codec: int = 0,
    padding: int = 0,
    raw_bytes: int | None = None,
    first_number: int = 0,
    mark: int | None = None,
) -> bytes:
    """Build a frame byte by byte from the specification, with a valid checksum."""
    used = 48 + len(source) + len(body)
    length = -(-used // 8) * 8 + padding
    start = struct.pack("<4sI", b"PXF1", length)
    rest = struct.pack(
        "<BBHIIIIQQ",
        kind,
        codec,
        len(source),
        count,
        len(body),
        len(body) if raw_bytes is None else raw_bytes,
        segment.number % 2**32 if mark is None else mark,
        received_ms,
        first_number,
    )
    rest += source + body + bytes(length - used)
    seed = crc32(struct.pack("<16sHQQ", segment.node, segment.slot, segment.number, offset))
    return start + struct.pack("<I", crc32(rest, crc32(start, seed))) + rest


def parse(image: bytes, segment: SegmentId = SEGMENT, offset: int = 64) -> Frame | int | None:
    return parse_frame(memoryview(image), 0, offset, segment)


def test_a_segment_name_is_its_number_in_16_hex_digits() -> None:
    assert segment_name(0xABC) == "0000000000000abc.seg"
    assert segment_name(2**64 - 1) == "ffffffffffffffff.seg"


@given(st.integers(0, 2**64 - 1))
def test_a_segment_number_is_parsed_from_its_name(number: int) -> None:
    assert segment_number(segment_name(number)) == number


@pytest.mark.parametrize(
    "name",
    [
        "spare",
        "writer.lock",
        "",
        ".seg",
        "0000000000000001",
        "0000000000000001.SEG",
        "0000000000000001.seg.bak",
        "000000000000001.seg",
        "00000000000000001.seg",
        "000000000000000A.seg",
        "0x00000000000001.seg",
        "+000000000000001.seg",
        " 00000000000001 .seg",
        "0000_0000_000001.seg",
        "000000000000000\u0661.seg",
    ],
)
def test_other_files_are_not_segments(name: str) -> None:
    assert segment_number(name) is None


def test_a_segment_header_is_as_specified() -> None:
    head = struct.pack("<8sHHI16sQQ12x", b"pixelfst", 2, 3, 0, NODE, 7, 1700000000123)
    assert pack_segment_header(SEGMENT, 1700000000123) == head + struct.pack("<I", crc32(head))


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**16 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**63),
)
def test_a_segment_header_is_parsed_unchanged(
    node: bytes, slot: int, number: int, created_ms: int
) -> None:
    segment = SegmentId(node, slot, number)
    assert parse_segment_header(pack_segment_header(segment, created_ms), segment, "") == segment


def test_a_segment_header_of_version_1_is_still_read() -> None:
    old = SEGMENT._replace(version=1)
    head = struct.pack("<8sHHI16sQQ12x", b"pixelfst", 1, 3, 0, NODE, 7, 0)
    header = head + struct.pack("<I", crc32(head))
    assert old == parse_segment_header(header, SEGMENT, "")
    assert header == pack_segment_header(old, 0)


def test_every_single_bit_flip_of_a_segment_header_is_found() -> None:
    header = pack_segment_header(SEGMENT, 1700000000123)
    for bit in range(8 * len(header)):
        damaged = bytearray(header)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SpoolCorrupt):
            parse_segment_header(bytes(damaged), SEGMENT, "x.seg")


def test_every_truncation_of_a_segment_header_is_found() -> None:
    header = pack_segment_header(SEGMENT, 0)
    for length in range(len(header)):
        with pytest.raises(SpoolCorrupt):
            parse_segment_header(header[:length], SEGMENT, "x.seg")


@pytest.mark.parametrize("version", [0, 3, 2**16 - 1])
def test_a_segment_header_of_another_version_is_reported(version: int) -> None:
    head = struct.pack("<8sHHI16sQQ12x", b"pixelfst", version, 3, 0, NODE, 7, 0)
    with pytest.raises(SpoolCorrupt, match=f"version {version}, this program reads up to 2"):
        parse_segment_header(head + struct.pack("<I", crc32(head)), SEGMENT, "x.seg")


@pytest.mark.parametrize(
    "other",
    [SEGMENT._replace(node=bytes(16)), SEGMENT._replace(slot=4), SEGMENT._replace(number=8)],
)
def test_a_segment_header_of_another_place_is_reported(other: SegmentId) -> None:
    with pytest.raises(SpoolCorrupt, match="belongs elsewhere") as caught:
        parse_segment_header(pack_segment_header(other, 0), SEGMENT, "x.seg")
    assert (caught.value.segment, caught.value.position) == ("x.seg", 0)


def test_a_frame_is_read_as_specified() -> None:
    image = build_frame(
        b"shop", b"{}\n[]\n", count=2, received_ms=1700000000123, first_number=2**40
    )
    frame = parse(image)
    assert isinstance(frame, Frame)
    assert frame[:7] == (7, 64, len(image), "shop", 2, 1700000000123, 2**40)
    assert bytes(frame.body) == b"{}\n[]\n"


def test_a_frame_is_read_at_any_offset_in_the_buffer() -> None:
    image = build_frame(offset=4096)
    data = memoryview(b"\xff" * 24 + image + b"\xff" * 100)
    frame = parse_frame(data, 24, 4096, SEGMENT)
    assert isinstance(frame, Frame)
    assert (frame.offset, bytes(frame.body)) == (4096, b'{"n":1}\n')


def test_a_truncated_frame_reports_how_many_bytes_it_needs() -> None:
    image = build_frame()
    for length in range(len(image)):
        assert parse(image[:length]) == (48 if length < 48 else len(image))


def test_every_single_bit_flip_of_a_frame_is_found() -> None:
    image = build_frame(b"web", b'{"n":1}\n{"n":22}\n', count=2, received_ms=1)
    for bit in range(8 * len(image)):
        damaged = bytearray(image)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not isinstance(parse(bytes(damaged)), Frame), f"bit {bit}"


def test_a_frame_is_valid_only_where_it_was_written() -> None:
    image = build_frame(offset=64)
    assert isinstance(parse(image), Frame)
    for offset in range(0, 2**16, 8):
        assert isinstance(parse(image, offset=offset), Frame) == (offset == 64)
    for slot in range(2**12):
        assert isinstance(parse(image, SEGMENT._replace(slot=slot)), Frame) == (slot == 3)
    for number in [*range(2**12), 2**32 + 7, 2**63 + 7]:
        assert isinstance(parse(image, SEGMENT._replace(number=number)), Frame) == (number == 7)
    for bit in range(128):
        node = (int.from_bytes(NODE, "big") ^ 1 << bit).to_bytes(16, "big")
        assert parse(image, SEGMENT._replace(node=node)) is None


@pytest.mark.parametrize(
    "image",
    [
        build_frame(mark=0),
        build_frame(mark=8),
        build_frame(kind=0),
        build_frame(kind=2),
        build_frame(codec=1),
        build_frame(padding=8),
        build_frame(padding=-2),
        build_frame(raw_bytes=9),
        build_frame(body=bytes(MAX_FRAME_BYTES)),
    ],
    ids=[
        "mark of version 1",
        "mark of another segment",
        "type 0",
        "type 2",
        "codec",
        "too much padding",
        "too little padding",
        "other raw length",
        "too long",
    ],
)
def test_a_frame_of_another_type_is_rejected_even_with_a_valid_checksum(image: bytes) -> None:
    assert parse(image) is None


def test_a_frame_of_version_1_has_no_mark() -> None:
    old = SEGMENT._replace(version=1)
    assert isinstance(parse(build_frame(mark=0), old), Frame)
    assert parse(build_frame(), old) is None


def test_in_a_segment_whose_header_is_damaged_frames_of_both_versions_are_read() -> None:
    unknown = SEGMENT._replace(version=UNKNOWN_VERSION)
    assert isinstance(parse(build_frame(mark=0), unknown), Frame)
    assert isinstance(parse(build_frame(), unknown), Frame)
    assert parse(build_frame(mark=8), unknown) is None


def test_a_damaged_frame_claims_its_own_length_if_it_has_the_segments_mark() -> None:
    image = bytearray(build_frame(body=b"x" * 100))
    length = len(image)
    image[60:] = b"\xff" * (length - 60)
    assert length == claimed_bytes(memoryview(image), 0, SEGMENT)
    assert claimed_bytes(memoryview(image), 0, SEGMENT._replace(number=8)) == 0
    assert claimed_bytes(memoryview(image[:47]), 0, SEGMENT) == 0
    for wrong in (0, 8, 48, length + 1, MAX_FRAME_BYTES + 8, 2**32 - 8):
        image[4:8] = struct.pack("<I", wrong)
        assert claimed_bytes(memoryview(image), 0, SEGMENT) == 48


@pytest.mark.parametrize("start", range(8))
def test_the_first_and_the_last_frame_are_found_wherever_the_data_starts(start: int) -> None:
    first, last = build_frame(offset=72), build_frame(offset=208)
    image = bytes(64) + bytes(8) + first + b"\xff" * (208 - 72 - len(first)) + last + bytes(16)
    data = memoryview(image)[start:]
    assert 72 - start == find_frame(data, start, SEGMENT, len(data))
    assert 208 - start == find_frame(data[80:], start + 80, SEGMENT, len(data)) + 80
    assert find_frame(data, start, SEGMENT, 72 - start) == -1
    found = rfind_frame(data, start, SEGMENT, len(data))
    assert found is not None
    assert (208 - start, len(last)) == (found[0], found[1].length)
    found = rfind_frame(data, start, SEGMENT, 208 - start)
    assert found is not None
    assert 72 - start == found[0]
    assert rfind_frame(data, start, SEGMENT, 72 - start) is None
    other = SEGMENT._replace(number=8)
    assert find_frame(data, start, other, len(data)) == -1
    assert rfind_frame(data, start, other, len(data)) is None


def test_a_last_frame_that_the_data_holds_only_in_part_is_found_by_its_header() -> None:
    first, last = build_frame(offset=64), build_frame(offset=136, body=b"x" * 200)
    image = first + bytes(136 - 64 - len(first)) + last
    for size in (72 + 48, len(image) - 8):
        found = rfind_frame(memoryview(image)[:size], 64, SEGMENT, size)
        assert found is not None
        assert (72, len(last)) == (found[0], found[1].length)
    found = rfind_frame(memoryview(image)[: 72 + 47], 64, SEGMENT, 72 + 47)
    assert found is not None
    assert (0, len(first)) == (found[0], found[1].length)
    damaged = image[:-20] + b"?" + image[-19:]
    found = rfind_frame(memoryview(damaged), 64, SEGMENT, len(damaged))
    assert found is not None
    assert found[0] == 0


def test_the_longest_frame_is_read() -> None:
    body = bytes(MAX_FRAME_BYTES - 51 - 5)
    frame = parse(build_frame(body=body))
    assert isinstance(frame, Frame)
    assert frame.length == MAX_FRAME_BYTES


@given(st.binary(max_size=200))
def test_random_bytes_are_not_a_frame_and_raise_nothing(data: bytes) -> None:
    assert not isinstance(parse(data), Frame)
    assert not isinstance(parse(b"PXF1" + data), Frame)


def test_zeros_are_not_a_frame() -> None:
    assert parse(bytes(4096)) is None
