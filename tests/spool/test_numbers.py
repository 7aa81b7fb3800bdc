"""Event numbers within a slot: unique, kept by a repeated commit, and counted by readers."""

from __future__ import annotations

import os
from errno import EIO

from pixelfast.spool import DataDir, Position, SlotFiles, SlotReader
from tests.spool.tools import Spool, drain, events_of, read_frames
from tests.spools import SEGMENT_BYTES, Slot


def numbers(spool: Spool) -> list[tuple[int, int]]:
    """Return the first number and the count of each frame that was stored."""
    return [(frame.first_number, frame.events) for frame in spool.disk.stored_frames()]


def next_number(data: DataDir, slot: int = 0) -> int:
    files = SlotFiles(data, slot, SEGMENT_BYTES)
    files.close()
    return files.next_number


def test_events_are_numbered_from_0_in_the_order_of_the_log() -> None:
    spool = Spool(names=["web", "app"])
    for source in (0, 0, 1, 0):
        spool.add(b"%d" % len(spool.ears.tickets), source)
    spool.settle()
    spool.add(b"last")
    spool.settle()
    assert [(0, 3), (3, 1), (4, 1)] == numbers(spool)


def test_a_writer_continues_the_numbers_of_the_previous_one() -> None:
    spool = Spool(next_number=1000)
    spool.add_many(3)
    spool.settle()
    assert [(1000, 3)] == numbers(spool)


def test_a_batch_that_is_committed_again_keeps_its_numbers() -> None:
    spool = Spool()
    spool.add_many(2)
    spool.turn()
    spool.add_many(3, first=2)
    spool.disk.complete(EIO, kept=10**6)
    spool.settle()
    assert [(0, 2), (2, 3)] == numbers(spool)
    on_disk = [frame.first_number for frame in spool.disk.frames()]
    assert [0, 0, 2] == on_disk  # the first one reached the disk nevertheless


def test_the_numbers_of_a_batch_that_was_given_up_are_not_used_again() -> None:
    spool = Spool()
    spool.add_many(2)
    for _ in range(2):
        spool.turn()
        spool.disk.complete(EIO)
    spool.loop.advance(3)
    assert len(spool.ears.not_stored) == 2
    spool.add_many(1, first=2)
    spool.settle()
    assert [(2, 1)] == numbers(spool)


def test_a_reopened_slot_continues_after_its_newest_frame(data: DataDir) -> None:
    slot = Slot(data)
    assert slot.next_number == 0
    slot.write(b"1", b"2")
    slot.roll()
    slot.write(b"3")
    slot.roll()  # made ahead, and nothing written
    slot.close()
    assert next_number(data) == 3


def test_a_writer_continues_after_the_newest_valid_frame_before_damage(
    data: DataDir, slot: Slot
) -> None:
    slot.write(b"1")
    slot.write(b"2")
    last = slot.write(b"3")
    slot.files.close()
    os.pwrite(slot.segment.fd, b"\xff", last.offset + 30)
    assert next_number(data) == 2
    slot.files = SlotFiles(data, 0, SEGMENT_BYTES)


def test_the_previous_segment_counts_if_the_newest_has_no_valid_frame(
    data: DataDir, slot: Slot
) -> None:
    slot.write(b"1", b"2")
    slot.roll()
    slot.put(slot.image(b"torn"), 0, 51)
    slot.files.close()
    assert next_number(data) == 2
    slot.files = SlotFiles(data, 0, SEGMENT_BYTES)


def test_a_reader_knows_the_next_number(data: DataDir, slot: Slot) -> None:
    reader = SlotReader(data, 0, Position())
    assert reader.next_number is None
    slot.write(b"0", b"1")
    drain(reader)
    assert reader.next_number == 2
    slot.roll()
    slot.write(b"2")
    drain(reader)
    assert reader.next_number == 3
    reader.close()
    assert [0, 2] == [frame.first_number for frame in read_frames(data)]


def test_a_reader_that_starts_within_the_log_misses_nothing(data: DataDir, slot: Slot) -> None:
    slot.write(b"0", b"1")
    reader = SlotReader(data, 0, slot.write(b"2"))
    drain(reader)
    assert (3, 0, 0) == (reader.next_number, reader.missing_events, reader.repeated_events)
    reader.close()


def test_skipped_numbers_are_counted(data: DataDir, slot: Slot) -> None:
    slot.write(b"0")
    damaged = slot.write(b"1", b"2", b"3")
    slot.write(b"4")
    slot.next_number += 10  # a batch that was given up
    slot.write(b"15")
    os.pwrite(slot.segment.fd, b"\xff", damaged.offset + 60)
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"0", b"4", b"15"]
    assert (16, 13, 0) == (reader.next_number, reader.missing_events, reader.repeated_events)
    reader.close()


def test_the_events_of_a_removed_segment_are_counted(data: DataDir, slot: Slot) -> None:
    slot.write(b"0")
    slot.roll()
    slot.write(b"1", b"2")
    reader = SlotReader(data, 0, Position())
    assert [0] == [frame.first_number for frame in reader.read()]
    slot.path(2).unlink()
    slot.roll()
    slot.write(b"3")
    assert events_of(drain(reader)) == [b"3"]
    assert (2, 4) == (reader.missing_events, reader.next_number)
    reader.close()


def test_a_failed_commit_that_reached_the_disk_is_read_twice_and_counted(
    data: DataDir, slot: Slot
) -> None:
    slot.write(b"0")
    slot.put(slot.image(b"1", b"2"))
    slot.roll(is_sound=False)
    slot.write(b"1", b"2")
    slot.write(b"3")
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"0", b"1", b"2", b"1", b"2", b"3"]
    assert (4, 0, 2) == (reader.next_number, reader.missing_events, reader.repeated_events)
    reader.close()
