"""Bodies compressed by zstd: all events are restored, and none is skipped without the package."""

from __future__ import annotations

import os
import sys
from zlib import crc32

import pytest
import zstandard
from hypothesis import given

from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors, SpoolError
from pixelfast.spool import DataDir, LogEnd, Position, SlotFiles, SlotReader, compressor
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import Frame, FrameHeader, SegmentId
from pixelfast.spool.frames import (
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    check_frame,
    parse_frame,
)
from tests.spool.test_batch import SEGMENT, batches, make_event, parse_all, split
from tests.spool.test_format import build_frame
from tests.spool.tools import Spool, drain, events_of, read_events
from tests.spools import SEGMENT_BYTES, Slot

NAMES = [b"web", b"a", b"n" * 63, b"seven77", b"eight888"]
COMPRESS = compressor("zstd")


def write_compressed(slot: Slot, *events: bytes) -> Position:
    batch = CommitBatch()
    for event in events:
        batch.add(0, event)
    batch.seal([b"web"], slot.segment.id, slot.segment.offset, slot.next_number, COMPRESS)
    image = batch.sealed()
    slot.put(image)
    position = Position(slot.segment.id.number, slot.segment.offset)
    slot.segment.offset += len(image)
    slot.next_number += len(events)
    return position


def codec(image: bytes, offset: int = 64, segment: SegmentId = SEGMENT) -> int:
    header = check_frame(memoryview(image), 0, offset, segment)
    assert isinstance(header, FrameHeader)
    return header.codec


@given(batches)
def test_a_compressed_body_is_restored(layout: list[tuple[int, int]]) -> None:
    events = [(source, make_event(n, size)) for n, (source, size) in enumerate(layout)]
    batch = CommitBatch()
    for source, event in events:
        batch.add(source, event)
    most = batch.sealed_bytes(NAMES)
    for segment in (SEGMENT, SEGMENT._replace(number=8)):  # a failed commit is retried
        assert batch.seal(NAMES, segment, 64, 5, COMPRESS) <= most
        number = 5
        order = list(dict.fromkeys(source for source, _ in events))
        frames = parse_all(batch.sealed(), 64, segment)
        for source, frame in zip(order, frames, strict=True):
            assert [event for whose, event in events if whose == source] == split(frame)
            assert number == frame.first_number
            number += frame.events


@pytest.mark.parametrize(
    ("event", "expected"),
    [(b"x" * 510, 0), (b"x" * 511, 1), (os.urandom(4000).replace(b"\n", b""), 0)],
    ids=["too small", "just enough", "not made smaller"],
)
def test_only_bodies_that_become_smaller_are_compressed(event: bytes, expected: int) -> None:
    batch = CommitBatch()
    batch.add(0, event)
    batch.seal(NAMES, SEGMENT, 64, 0, COMPRESS)
    assert expected == codec(batch.sealed())


def test_a_writer_that_compresses_stores_less_and_the_same_events() -> None:
    plain, smaller = Spool(), Spool(compress=COMPRESS)
    for spool in (plain, smaller):
        events = spool.add_many(200)
        spool.settle()
        assert events == spool.ears.stored
    assert plain.disk.events() == smaller.disk.events()
    assert smaller.writer.stored_bytes < plain.writer.stored_bytes / 3


def test_compressed_and_plain_frames_are_read_alike(data: DataDir, slot: Slot) -> None:
    slot.write(b"plain")
    position = write_compressed(slot, b"a" * 600, b"b" * 600)
    slot.write(b"plain again")
    assert read_events(data, position) == [b"a" * 600, b"b" * 600, b"plain again"]
    assert (Position(1, slot.segment.offset), 4) == LogEnd(data, 0).refresh()


def test_highly_compressed_frames_are_not_all_read_at_once(data: DataDir) -> None:
    slot = Slot(data, segment_bytes=2**20)
    for _ in range(12):
        write_compressed(slot, b"x" * (2**20 - 2))
    reader = SlotReader(data, 0, Position())
    sizes = []
    while frames := reader.read():
        sizes.append(len(frames))
    assert [2] * 6 == sizes
    reader.close()
    slot.close()


def packed(body: bytes, raw_bytes: int) -> bytes:
    return build_frame(body=body, codec=1, raw_bytes=raw_bytes)


@pytest.mark.parametrize(
    "image",
    [
        packed(zstandard.compress(b"x" * 600), 601),
        packed(zstandard.compress(b"x" * 600), 599),
        packed(zstandard.compress(b"x" * (MAX_FRAME_BYTES + 1)), MAX_FRAME_BYTES + 1),
        packed(zstandard.compress(b"x" * 600)[:-1], 600),
        packed(zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 600), 600),
        packed(b"no zstd at all", 600),
        packed(b"{}\n", 3),
    ],
    ids=["longer", "shorter", "too long", "cut off", "without a size", "not zstd", "not smaller"],
)
def test_a_body_that_contradicts_its_header_is_not_a_frame(image: bytes) -> None:
    assert parse_frame(memoryview(image), 0, 64, SEGMENT) is None


def test_a_decompression_bomb_is_not_unpacked(data: DataDir, slot: Slot) -> None:
    # The header is consistent, but the content claims more bytes than the header.
    bomb = packed(zstandard.compress(bytes(64 * 2**20)), 1000 * 1000)
    image = bytearray(bomb)
    seed = crc32((64).to_bytes(8, "little"), slot.segment.id.seed_base())
    checksum = crc32(image[12:], crc32(image[:8], seed))
    image[8:12] = checksum.to_bytes(4, "little")
    slot.put(bytes(image))
    slot.segment.offset += len(image)
    slot.write(b"good")
    assert read_events(data) == [b"good"]


def test_without_the_package_nothing_is_skipped(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.write(b"0")
    write_compressed(slot, b"1" * 600)
    slot.write(b"2")
    slot.roll()
    slot.write(b"3")
    reader = SlotReader(data, 0, Position())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zstandard", None)
        assert events_of(reader.read()) == [b"0"]
        for _ in range(3):
            with pytest.raises(SpoolError, match=r"pixelfast\[zstd\]"):
                reader.read()
        slot.files.close()
        slot.files = SlotFiles(data, 0, SEGMENT_BYTES)  # writing continues
        assert slot.files.next_number == 4
    assert events_of(drain(reader)) == [b"1" * 600, b"2", b"3"]
    assert reader.damaged_bytes == 0
    reader.close()


def test_settings_that_require_the_package_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_from_table({"spool": {"compression": "zstd"}}).spool.compression == "zstd"
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SpoolError, match=r"pixelfast\[zstd\]"):
        compressor("zstd")
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    with pytest.raises(ConfigErrors, match=r"spool.compression = \"zstd\": .*pixelfast\[zstd\]"):
        config_from_table({"spool": {"compression": "zstd"}})
    assert compressor("none") is None


def test_a_compressed_frame_has_the_codec_of_the_specification() -> None:
    stored = zstandard.compress(b"x" * 600)
    image = packed(stored, 600)
    frame = parse_frame(memoryview(image), 0, 64, SEGMENT)
    assert isinstance(frame, Frame)
    assert b"x" * 600 == bytes(frame.body)
    assert image[13] == 1
    assert stored == image[FRAME_HEADER_BYTES + 3 :][: len(stored)]
