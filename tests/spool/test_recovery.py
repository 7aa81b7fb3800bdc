"""Damage: exactly the valid frames are read, and damaged bytes are quarantined once."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from pixelfast.spool import DataDir, Position, SlotReader
from pixelfast.spool.recovery import next_frame_offset, quarantine
from tests.spool.tools import drain, events_of, read_events
from tests.spools import Slot, seal

EVENTS = [(b'{"n":1}',), (b'{"n":22}', b'{"n":3}'), (b"{}",), (b'{"n":44444}',)]


def write_small(slot: Slot) -> tuple[list[tuple[int, int]], bytes]:
    """Write four frames; return their places, and the bytes of the segment up to the last one."""
    ranges = []
    for events in EVENTS:
        start = slot.write(*events).offset
        ranges.append((start, slot.segment.offset))
    return ranges, slot.path().read_bytes()[: slot.segment.offset]


def without(*frames: int) -> list[bytes]:
    return [event for n, events in enumerate(EVENTS) if n not in frames for event in events]


def copies(data: DataDir) -> list[Path]:
    return sorted(data.quarantine_dir.iterdir())


@pytest.fixture(params=[False, True], ids=["newest segment", "older segment"])
def has_later(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def add_later(slot: Slot, has_later: bool) -> list[bytes]:
    """Add another segment with a frame if `has_later`; return its events."""
    if not has_later:
        return []
    slot.roll()
    slot.write(b"later")
    return [b"later"]


def test_every_bit_flip_damages_only_its_frame(data: DataDir, slot: Slot, has_later: bool) -> None:
    ranges, image = write_small(slot)
    later = add_later(slot, has_later)
    fd = os.open(slot.path(), os.O_RDWR | os.O_CLOEXEC)
    for bit in range(8 * len(image)):
        at = bit // 8
        os.pwrite(fd, bytes([image[at] ^ 1 << bit % 8]), at)
        touched = [n for n, (start, end) in enumerate(ranges) if start <= at < end]
        assert without(*touched) + later == read_events(data), f"bit {bit}"
        os.pwrite(fd, image[at : at + 1], at)
    os.close(fd)
    assert without() + later == read_events(data)


def test_every_truncation_leaves_the_frames_before_it(
    data: DataDir, slot: Slot, has_later: bool
) -> None:
    ranges, image = write_small(slot)
    later = add_later(slot, has_later)
    for length in range(len(image), -1, -1):
        os.truncate(slot.path(), length)
        touched = [n for n, (_, end) in enumerate(ranges) if length < end]
        assert without(*touched) + later == read_events(data), f"{length} bytes"


def test_every_torn_tail_leaves_the_frames_before_it(
    data: DataDir, slot: Slot, has_later: bool
) -> None:
    # A preallocated segment reads as zeros where nothing was written.
    ranges, image = write_small(slot)
    later = add_later(slot, has_later)
    fd = os.open(slot.path(), os.O_RDWR | os.O_CLOEXEC)
    for at in range(len(image) - 1, 63, -1):
        os.pwrite(fd, b"\0", at)
        touched = [n for n, (_, end) in enumerate(ranges) if image[at:end].strip(b"\0")]
        assert without(*touched) + later == read_events(data), f"zeros from {at}"
    os.close(fd)


def test_every_damaged_pair_of_frames_leaves_the_others(
    data: DataDir, slot: Slot, has_later: bool
) -> None:
    ranges, image = write_small(slot)
    later = add_later(slot, has_later)
    for first in range(4):
        for second in range(4):
            damaged = bytearray(image)
            damaged[ranges[first][0] + 20] ^= 1
            damaged[ranges[second][0] + 21] ^= 1
            slot.path().write_bytes(damaged)
            assert without(first, second) + later == read_events(data)


def test_random_bytes_invent_no_events(data: DataDir, slot: Slot, has_later: bool) -> None:
    _, image = write_small(slot)
    later = add_later(slot, has_later)
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(image)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(image))
            damaged[at : at + 40] = chance.randbytes(min(40, len(image) - at))
        slot.path().write_bytes(damaged)
        found = read_events(data)
        assert found == [event for event in without() + later if event in found]
        assert later == found[len(found) - len(later) :]


def test_frames_at_another_place_are_not_valid(data: DataDir, slot: Slot, has_later: bool) -> None:
    ranges, image = write_small(slot)
    later = add_later(slot, has_later)
    for source, (start, end) in enumerate(ranges):
        for target, (place, _) in enumerate(ranges):
            if source == target:
                continue
            moved = bytearray(image)
            moved[place : place + end - start] = image[start:end]
            moved += bytes(4096 - len(moved))
            slot.path().write_bytes(moved)
            touched = [
                n for n, (a, b) in enumerate(ranges) if a < place + end - start and b > place
            ]
            assert without(*touched) + later == read_events(data)


def test_an_old_frame_after_the_end_is_not_read(data: DataDir, slot: Slot) -> None:
    # As when a file system reuses the blocks of a removed segment.
    ranges, image = write_small(slot)
    for start, end in ranges:
        slot.path().write_bytes(image + image[start:end] + image[64:])
        assert without() == read_events(data)


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"\xff" * 64, b"pixelfst\x03"])
def test_frames_after_a_damaged_segment_header_are_read(
    data: DataDir, slot: Slot, logs: list[Any], has_later: bool, damage: bytes
) -> None:
    _, image = write_small(slot)
    later = add_later(slot, has_later)
    slot.path().write_bytes(damage + image[len(damage) :])
    assert without() + later == read_events(data)
    errors = [entry for entry in logs if entry["event"] == "segment_header_damaged"]
    assert len(errors) == (1 if damage else 0)


@pytest.mark.parametrize("size", [0, 1, 63])
def test_a_segment_shorter_than_its_header_is_skipped(data: DataDir, slot: Slot, size: int) -> None:
    slot.path().write_bytes(bytes(size))
    slot.roll(is_sound=False)
    slot.write(b"good")
    assert read_events(data) == [b"good"]


@pytest.mark.parametrize("size", [1, 4, 8, 20, 47, 48])
def test_the_newest_segment_is_read_even_if_its_first_frame_is_damaged(
    data: DataDir, slot: Slot, size: int
) -> None:
    slot.write(b"1")
    slot.roll()
    slot.write(b"2")
    slot.write(b"3")
    fd = os.open(slot.path(2), os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(fd, b"\xff" * size, 64)
    os.close(fd)
    assert read_events(data) == [b"1", b"3"]


def test_zeros_within_an_older_segment_are_skipped(data: DataDir, slot: Slot) -> None:
    ranges, image = write_small(slot)
    later = add_later(slot, True)
    hole = bytearray(image)
    hole[ranges[1][0] : ranges[2][1]] = bytes(ranges[2][1] - ranges[1][0])
    slot.path().write_bytes(hole)
    assert without(1, 2) + later == read_events(data)
    assert copies(data) == []


def test_damage_longer_than_the_longest_frame_is_skipped(data: DataDir) -> None:
    slot = Slot(data, segment_bytes=8 * 2**20)
    slot.write(b"1")
    start = slot.segment.offset
    for _ in range(3):
        slot.write(b"x" * (2**20 + 32_768))
    fd = os.open(slot.path(), os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(fd, b"\xff" * (slot.segment.offset - start), start)
    os.close(fd)
    slot.write(b"2")
    slot.roll()
    slot.write(b"3")
    assert read_events(data) == [b"1", b"2", b"3"]
    slot.close()


def test_damaged_bytes_are_quarantined_exactly_and_counted(
    data: DataDir, slot: Slot, has_later: bool
) -> None:
    ranges, image = write_small(slot)
    add_later(slot, has_later)
    damaged = bytearray(image)
    damaged[ranges[1][0] + 2] ^= 0x10
    slot.path().write_bytes(damaged)
    reader = SlotReader(data, 0, Position())
    drain(reader)
    reader.close()
    (copy,) = copies(data)
    expected = bytes(damaged[slice(*ranges[1])]).rstrip(b"\0")
    assert expected == copy.read_bytes()
    assert len(expected) == reader.damaged_bytes
    assert copy.name == f"0-0000000000000001-{ranges[1][0]:08x}.bad"


def test_a_torn_tail_is_quarantined_after_the_writer_restarts(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    image = slot.image(b"torn" * 10)
    slot.put(image, 0, 60)
    assert read_events(data) == [b"1"]
    assert copies(data) == []
    slot.roll(is_sound=False)
    assert read_events(data) == [b"1"]
    assert copies(data) == []
    slot.write(b"2")
    assert read_events(data) == [b"1", b"2"]
    assert [image[:60].rstrip(b"\0")] == [copy.read_bytes() for copy in copies(data)]


def test_damage_is_quarantined_only_once_by_all_readers(
    data: DataDir, slot: Slot, logs: list[Any]
) -> None:
    ranges, image = write_small(slot)
    add_later(slot, True)
    slot.path().write_bytes(image[: ranges[3][0] + 48] + b"\xff" * 30)
    assert without(3) + [b"later"] == read_events(data)
    (copy,) = copies(data)
    before = copy.stat().st_ino, copy.stat().st_mtime_ns
    for _ in range(3):
        assert without(3) + [b"later"] == read_events(data)
    assert [copy] == copies(data)
    assert before == (copy.stat().st_ino, copy.stat().st_mtime_ns)
    assert len([entry for entry in logs if entry["event"] == "damage_quarantined"]) == 1


def test_reading_continues_if_the_quarantine_cannot_be_written(
    data: DataDir, slot: Slot, logs: list[Any]
) -> None:
    ranges, image = write_small(slot)
    slot.path().write_bytes(image[: ranges[1][0]] + b"\xff" + image[ranges[1][0] + 1 :])
    data.quarantine_dir.rmdir()
    assert without(1) == read_events(data)
    assert "quarantine_failed" in {entry["event"] for entry in logs}


def test_damage_is_not_changed(data: DataDir, slot: Slot) -> None:
    # Nothing is truncated or repaired: a later search may find more.
    ranges, image = write_small(slot)
    add_later(slot, True)
    damaged = image[: ranges[1][0]] + b"\xff" + image[ranges[1][0] + 1 :]
    slot.path().write_bytes(damaged)
    for _ in range(2):
        read_events(data)
    assert damaged == slot.path().read_bytes()


def test_zeros_alone_are_not_damage(data: DataDir, slot: Slot) -> None:
    assert quarantine(data.quarantine_dir, slot.segment.fd, slot.segment.id, 64, 4096) == 0
    assert copies(data) == []


def test_the_next_frame_is_found_from_every_offset(data: DataDir, slot: Slot) -> None:
    del data
    ranges, image = write_small(slot)
    for start in range(len(image) + 8):
        expected = next((a for a, _ in ranges if a >= start), None)
        found = next_frame_offset(slot.segment.fd, slot.segment.id, start, 4096)
        assert expected == found, f"from {start}"


def test_the_next_frame_is_searched_only_before_the_stop(data: DataDir, slot: Slot) -> None:
    del data
    ranges, _ = write_small(slot)
    start = ranges[1][0]
    look = [
        next_frame_offset(slot.segment.fd, slot.segment.id, 72, start + n) for n in range(-1, 2)
    ]
    assert [None, None, start] == look


@pytest.mark.parametrize("window_bytes", [8, 16, 24, 40, 64, 136])
def test_the_next_frame_is_found_across_windows(
    data: DataDir, slot: Slot, window_bytes: int
) -> None:
    del data
    ranges, image = write_small(slot)
    for start in range(64, len(image)):
        expected = next((a for a, _ in ranges if a >= start), None)
        place = slot.segment.fd, slot.segment.id, start, 4096
        found = next_frame_offset(*place, window_bytes=window_bytes)
        assert expected == found, f"from {start}"


def test_a_frame_at_an_unaligned_offset_is_not_read(data: DataDir, slot: Slot) -> None:
    # No writer puts a frame there, so whatever looks like one was not written as a frame.
    os.pwrite(slot.segment.fd, seal([(0, b"no")], [b"web"], slot.segment.id, 68), 68)
    slot.segment.offset = 128
    slot.write(b"good")
    slot.roll(is_sound=False)
    slot.write(b"later")
    assert read_events(data) == [b"good", b"later"]


def test_events_that_look_like_frames_do_not_hide_the_next_one(data: DataDir, slot: Slot) -> None:
    first = slot.write(b"PXF1" * 100)
    slot.write(b"2")
    fd = os.open(slot.path(), os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(fd, b"\xff", first.offset)
    os.close(fd)
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"2"]
    reader.close()
