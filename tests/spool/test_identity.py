"""Segments that were moved are read; those of another version are left unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from pixelfast.spool import (
    DataDir,
    LogEnd,
    Position,
    SlotFiles,
    SlotReader,
    remove_drained_slot,
    remove_read_segments,
)
from tests.spool.test_recovery import add_later, copies, without, write_small
from tests.spool.tools import drain, events_of, read_events, read_frames
from tests.spools import SEGMENT_BYTES, Slot


def test_swapped_segments_are_read_where_they_are(data: DataDir, slot: Slot) -> None:
    for number in range(2):
        slot.write(b"%d" % number)
        slot.roll()
    slot.write(b"good")
    one, two = slot.path(1).read_bytes(), slot.path(2).read_bytes()
    slot.path(1).write_bytes(two)
    slot.path(2).write_bytes(one)
    frames = read_frames(data)
    assert [b"1", b"0", b"good"] == events_of(frames)
    assert [1, 2, 3] == [frame.segment for frame in frames]
    assert read_events(data, Position(2)) == [b"0", b"good"]
    assert copies(data) == []


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (2, 2)])
def test_a_swapped_newest_segment_is_read_and_its_numbers_continue(
    data: DataDir, slot: Slot, order: tuple[int, int]
) -> None:
    slot.write(b"0", b"1")
    slot.roll()
    slot.write(b"2")
    images = {n: slot.path(n).read_bytes() for n in (1, 2)}
    for place, origin in enumerate(order, 1):
        slot.path(place).write_bytes(images[origin])
    end, next_number = LogEnd(data, 0).refresh()
    assert (2, {1: 2, 2: 3}[order[1]]) == (end.segment, next_number)
    assert read_events(data, end) == []


def test_a_moved_segment_is_read_up_to_its_damage(data: DataDir, slot: Slot) -> None:
    ranges, image = write_small(slot)
    add_later(slot, True)
    moved = bytearray(image)
    moved[ranges[1][0] + 5] ^= 1
    slot.path(1).unlink()
    slot.path(2).rename(slot.path(3))
    slot.path(2).write_bytes(moved)
    assert without(1) + [b"later"] == read_events(data)
    assert len(copies(data)) == 1


def make_newer(path: Path) -> bytes:
    """Turn a segment into one of version 3 whose frames have the current layout."""
    image = path.read_bytes()
    head = image[:8] + b"\x03\0" + image[10:60]
    path.write_bytes(head + crc32(head).to_bytes(4, "little") + image[64:])
    return path.read_bytes()


def test_a_segment_of_a_newer_version_is_skipped_and_kept(
    data: DataDir, slot: Slot, logs: list[Any]
) -> None:
    for number in range(4):
        slot.write(b"%d" % number)
        slot.roll()
    newer = make_newer(slot.path(2))
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"0", b"2", b"3"]
    assert (1, 0, 0) == (reader.newer_segments, reader.missing_segments, reader.damaged_bytes)
    reader.close()
    assert read_events(data, Position(2, 72)) == [b"2", b"3"]
    assert copies(data) == []
    assert len([entry for entry in logs if entry["event"] == "segment_format_unsupported"]) == 2
    remove_read_segments(data, 0, [4])
    assert [2, 4, 5] == data.segments(0)
    slot.files.close()
    assert not remove_drained_slot(data, 0, [LogEnd(data, 0).refresh()[0]])
    assert newer == slot.path(2).read_bytes()
    slot.files = SlotFiles(data, 0, SEGMENT_BYTES)


def test_a_reader_waits_before_a_newest_segment_of_a_newer_version(
    data: DataDir, slot: Slot, logs: list[Any]
) -> None:
    slot.write(b"0")
    slot.roll()
    slot.write(b"1")
    make_newer(slot.path(2))
    readers = [SlotReader(data, 0, Position()), SlotReader(data, 0, Position(2, 64))]
    assert [[b"0"], []] == [events_of(drain(reader)) for reader in readers]
    slot.roll()
    slot.write(b"2")
    assert [[b"2"], [b"2"]] == [events_of(drain(reader)) for reader in readers]
    assert [1, 1] == [reader.newer_segments for reader in readers]
    assert [0, 0] == [reader.missing_segments for reader in readers]
    assert len([entry for entry in logs if entry["event"] == "segment_format_unsupported"]) == 2
    for reader in readers:
        reader.close()


def test_segments_of_another_node_contain_no_frames(data: DataDir, tmp_path: Path) -> None:
    slot = Slot(data)
    slot.write(b"1")
    shutil.copytree(data.slot_dir(0), data.slot_dir(1))
    other = DataDir.open(tmp_path / "other")
    shutil.copytree(data.slot_dir(0), other.slot_dir(0))
    assert read_events(other) == []
    assert read_events(data) == [b"1"]
    assert read_events(data, slot=1) == [b"1"]  # moved, but ours
    slot.close()
