"""Reading a slot from any position, while its writer continues writing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelfast.spool import DataDir, Position, SlotReader, recovery
from pixelfast.spool.format import Frame
from tests.leaks import open_fds
from tests.spool.tools import drain, events_of, read_events, read_frames
from tests.spools import Slot, seal


def test_an_empty_data_directory_has_no_frames(data: DataDir) -> None:
    assert read_events(data) == []
    assert read_events(data, Position(5, 4096, 3)) == []


def test_a_slot_that_is_created_later_is_read(data: DataDir) -> None:
    reader = SlotReader(data, 0, Position())
    assert reader.read() == []
    slot = Slot(data)
    slot.write(b"1")
    assert events_of(drain(reader)) == [b"1"]
    slot.close()
    reader.close()


def test_frames_are_read_in_order_and_complete(data: DataDir, slot: Slot) -> None:
    positions = [slot.write(b"1", b"2"), slot.write(b"3", source="app"), slot.write(b"4")]
    frames = read_frames(data)
    assert positions == [Position(frame.segment, frame.offset) for frame in frames]
    assert ["web", "app", "web"] == [frame.source for frame in frames]
    assert [2, 1, 1] == [frame.events for frame in frames]
    assert [b"1", b"2", b"3", b"4"] == events_of(frames)


def test_reading_continues_from_every_position(data: DataDir, slot: Slot) -> None:
    positions = []
    for number in range(12):
        positions.append(slot.write(b"%d" % number))
        if number % 5 == 4:
            slot.roll()
    for number, position in enumerate(positions):
        assert [b"%d" % n for n in range(number, 12)] == read_events(data, position)


def test_another_reader_continues_at_the_position_of_the_first(data: DataDir, slot: Slot) -> None:
    reader = SlotReader(data, 0, Position())
    for number in range(6):
        slot.write(b"%d" % number)
        assert events_of(reader.read()) == [b"%d" % number]
        position = reader.position
        slot.write(b"next")
        assert read_events(data, position) == [b"next"]
        assert events_of(reader.read()) == [b"next"]
        slot.roll()
    reader.close()


def test_a_position_within_a_frame_returns_the_whole_frame(data: DataDir, slot: Slot) -> None:
    # The reader does not divide frames; its caller skips the events that it already has.
    slot.write(b"0")
    position = slot.write(b"1", b"2", b"3")
    slot.write(b"4")
    frames = read_frames(data, position._replace(skip=2))
    assert [b"1", b"2", b"3", b"4"] == events_of(frames)
    assert position == Position(frames[0].segment, frames[0].offset)


def test_positions_compare_in_the_order_of_events() -> None:
    assert Position() < Position(1, 64) < Position(1, 64, 1) < Position(1, 128) < Position(2, 64)


def test_several_slots_do_not_mix(data: DataDir) -> None:
    slots = [Slot(data, number) for number in (0, 1, 12)]
    for slot in slots:
        slot.write(b"%d" % slot.number)
    assert [0, 1, 12] == data.slots()
    for slot in slots:
        assert [b"%d" % slot.number] == read_events(data, slot=slot.number)
        slot.close()


@pytest.mark.parametrize("events", [(b"12345",), (b"1", b"22", b"333")])
def test_a_frame_is_read_once_it_is_complete_even_if_its_write_pauses(
    data: DataDir, slot: Slot, events: tuple[bytes, ...]
) -> None:
    reader = SlotReader(data, 0, Position())
    for cut in range(51 + len(b"".join(events)) + len(events)):  # the padding may be missing
        image = slot.image(*events)
        slot.put(image, 0, cut)
        assert drain(reader) == []
        slot.put(image, cut)
        slot.segment.offset += len(image)
        slot.next_number += len(events)
        assert list(events) == events_of(drain(reader))
        if slot.segment.offset > 3500:
            slot.roll()
    assert reader.damaged_bytes == 0
    reader.close()


def test_a_commit_of_several_frames_is_read_as_far_as_it_is_written(
    data: DataDir, slot: Slot
) -> None:
    pairs = [(0, b"1"), (1, b"22"), (2, b"333"), (0, b"4")]
    image = seal(pairs, [b"a", b"b", b"c"], slot.segment.id, 64)
    reader = SlotReader(data, 0, Position())
    found = []
    ends = [53, 56 + 52, 56 + 56 + 53]  # without the padding
    assert len(image) == 3 * 56
    for cut in range(len(image)):
        slot.put(image, cut, cut + 1)
        found += drain(reader)
        assert sum(end <= cut + 1 for end in ends) == len(found)
    assert [b"1", b"4", b"22", b"333"] == events_of(found)
    assert reader.damaged_bytes == 0
    reader.close()


def test_a_frame_written_while_the_reader_searches_behind_it_is_not_skipped(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A read and a write of several pages are not atomic: the reader may see the first pages as they
    # were before the write and the last ones as they are after it.
    first = slot.image(b"first" * 20)
    slot.put(first, 0, 100)
    reader = SlotReader(data, 0, Position())
    assert reader.read() == []
    end = slot.segment.offset + len(first)
    second = seal([(0, b"second")], [b"web"], slot.segment.id, end)
    real = os.pread

    def pread(fd: int, count: int, offset: int) -> bytes:
        before = real(fd, count, offset)
        slot.put(first + second)
        return before[: end - offset] + real(fd, count, offset)[end - offset :]

    class Os:
        def __getattr__(self, name: str) -> Any:
            return pread if name == "pread" else getattr(os, name)

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "os", Os())
        found = drain(reader)
    found += drain(reader)
    reader.close()
    assert [b"first" * 20, b"second"] == events_of(found)


def test_reading_continues_in_the_next_segment(data: DataDir, slot: Slot) -> None:
    reader = SlotReader(data, 0, Position())
    expected = []
    found = []
    for number in range(30):
        expected.append(b"%d" % number)
        slot.write(expected[-1])
        if number % 4 == 0:
            found += drain(reader, 1)
        if number % 3 == 0:
            slot.roll(is_sound=number % 2 == 0)
    found += drain(reader)
    assert expected == events_of(found)
    assert (0, 0) == (reader.damaged_bytes, reader.missing_segments)
    reader.close()


def test_segments_that_were_never_written_are_skipped(data: DataDir, slot: Slot) -> None:
    reader = SlotReader(data, 0, Position())
    slot.write(b"1")
    for _ in range(3):
        slot.roll(is_sound=False)
    assert events_of(drain(reader)) == [b"1"]
    assert reader.position.segment == 1
    slot.write(b"2")
    assert events_of(drain(reader)) == [b"2"]
    slot.roll()
    slot.roll()
    slot.write(b"3")
    assert events_of(drain(reader)) == [b"3"]
    assert (0, 0) == (reader.damaged_bytes, reader.missing_segments)
    assert list(data.quarantine_dir.iterdir()) == []
    reader.close()


def test_a_reader_waits_at_the_end_until_there_are_more_frames(data: DataDir, slot: Slot) -> None:
    # The next segment exists already; continuing there now would miss later frames of this one.
    slot.write(b"1")
    ahead = slot.files.create()
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"1"]
    slot.write(b"2")
    assert events_of(drain(reader)) == [b"2"]
    os.close(ahead.fd)
    reader.close()


def test_the_end_of_a_segment_that_a_crash_left_is_not_the_end_of_the_log(
    data: DataDir, slot: Slot
) -> None:
    for n in range(5):
        slot.write(b"%d" % n)
        slot.roll(is_sound=n % 2 == 0)
    reader = SlotReader(data, 0, Position())
    found: list[bytes] = []
    while not reader.is_at_end:
        found += events_of(reader.read())
    assert [b"0", b"1", b"2", b"3", b"4"] == found
    slot.write(b"5")
    assert [b"5"] == events_of(reader.read())
    assert reader.is_at_end, "without another read"
    reader.close()


def test_missing_segments_are_skipped_and_counted(data: DataDir, slot: Slot) -> None:
    positions = []
    for number in range(4):
        positions.append(slot.write(b"%d" % number))
        slot.roll()
    slot.path(1).unlink()
    slot.path(2).unlink()
    reader = SlotReader(data, 0, positions[1]._replace(offset=72))
    assert events_of(drain(reader)) == [b"2", b"3"]
    assert reader.missing_segments == 1
    reader.close()
    assert read_events(data) == [b"2", b"3"]


def test_removed_segments_are_not_missing_if_a_slot_is_read_from_its_beginning(
    data: DataDir, slot: Slot
) -> None:
    slot.write(b"1")
    slot.roll()
    slot.write(b"2")
    slot.path(1).unlink()
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"2"]
    assert reader.missing_segments == 0
    reader.close()


def test_a_segment_removed_while_it_is_opened_is_skipped(data: DataDir, slot: Slot) -> None:
    # Another process removes it between the listing and the opening.
    slot.write(b"1")
    slot.roll()
    slot.write(b"2")
    slot.path(1).unlink()

    class Stale(DataDir):
        is_stale = False

        def segments(self, slot: int) -> list[int]:
            is_stale, self.is_stale = self.is_stale, False
            return [1, 2] if is_stale else super().segments(slot)

    stale = Stale(data.path, data.node)
    reader = SlotReader(stale, 0, Position())
    stale.is_stale = True
    assert events_of(drain(reader)) == [b"2"]
    reader.close()


def test_a_segment_being_read_may_be_removed(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    reader = SlotReader(data, 0, Position())
    assert events_of(reader.read()) == [b"1"]
    slot.write(b"2")
    slot.path(1).unlink()
    slot.roll()
    slot.write(b"3")
    assert events_of(drain(reader)) == [b"2", b"3"]
    reader.close()


def test_large_frames_and_frames_across_chunks_are_read(data: DataDir) -> None:
    slot = Slot(data, segment_bytes=8 * 2**20)
    expected = []
    for size in (2**20 - 200, 2**20 + 32_768, 10, 700_000, 700_000, 2**20 - 44, 2**20, 5):
        expected.append(b"%07d" % size * (size // 7 + 1))
        slot.write(expected[-1])
    assert expected == read_events(data)
    slot.close()


def test_a_closed_reader_leaves_no_open_descriptor(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    slot.roll()
    slot.write(b"2")
    before = open_fds()
    for _ in range(3):
        reader = SlotReader(data, 0, Position())
        drain(reader)
        reader.close()
        reader.close()
    assert before == open_fds()


@pytest.mark.parametrize(
    "cursor", [Position(9), Position(2, 64, 1), Position(1, 2**20), Position(1, 3000)]
)
def test_a_cursor_beyond_the_data_is_moved_to_its_end(
    data: DataDir, slot: Slot, cursor: Position
) -> None:
    # As after a power failure or a restored backup. Later events must not be missed.
    slot.write(b"1")
    reader = SlotReader(data, 0, cursor)
    drain(reader)
    slot.write(b"2")
    found = drain(reader)
    slot.roll()
    slot.write(b"3")
    found += drain(reader)
    reader.close()
    assert events_of(found)[-2:] == [b"2", b"3"]


@pytest.mark.parametrize("is_at_end", [False, True])
def test_a_cursor_after_many_small_frames_reads_each_byte_about_once(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch, is_at_end: bool
) -> None:
    # A read of the longest frame for each of 20,000 short ones stalled delivery for minutes.
    for number in range(2000):
        last = slot.write(b"%d" % number)
    end = read_frames(data)[-1].offset + 4096
    reads_bytes = 0
    pread = os.pread

    def counting_pread(fd: int, size: int, offset: int) -> bytes:
        nonlocal reads_bytes
        found = pread(fd, size, offset)
        reads_bytes += len(found)
        return found

    monkeypatch.setattr(os, "pread", counting_pread)
    reader = SlotReader(data, 0, Position(last.segment, end) if is_at_end else last)
    frames = reader.read()
    reader.close()
    assert ([] if is_at_end else [b"1999"]) == events_of(frames)
    assert reads_bytes < 20 * last.offset


def test_a_cursor_of_a_slot_that_was_created_again_misses_nothing(data: DataDir) -> None:
    # The spool was removed and the cursors were not; delivery may start before the collector.
    data.slot_dir(0).mkdir()
    reader = SlotReader(data, 0, Position(9, 4096, 3))
    assert drain(reader) == []
    slot = Slot(data)
    slot.write(b"1")
    slot.roll()
    slot.write(b"2")
    assert events_of(drain(reader)) == [b"1", b"2"]
    reader.close()
    slot.close()


steps = st.lists(
    st.sampled_from(["write", "begin", "end", "roll", "crash", "read", "reopen"]), max_size=40
)


@settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(steps)
def test_all_events_are_read_in_order_whenever_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    data = DataDir.open(tmp_path_factory.mktemp("data"))
    slot = Slot(data)
    reader = SlotReader(data, 0, Position())
    expected: list[bytes] = []
    frames: list[Frame] = []
    begun = b""  # a frame that is being written
    for number, step in enumerate(steps):
        event = b"%0*d" % (1 + number * 5 % 37, number)
        if step == "begin" and not begun:
            begun = slot.image(event)
            slot.put(begun, 0, number * 7 % (51 + len(event)))  # not its last byte
        elif step == "end" and begun:
            slot.put(begun)
            slot.segment.offset += len(begun)
            slot.next_number += 1
            expected.append(begun[51:].rstrip(b"\0").rstrip())
            begun = b""
        elif step == "write" and not begun:
            slot.write(event)
            expected.append(event)
        elif step == "roll" and not begun:
            slot.roll()
        elif step == "crash":  # the frame in progress was not acknowledged
            slot.roll(is_sound=False)
            begun = b""
        elif step == "read":
            frames += reader.read()
        elif step == "reopen":
            position = reader.position
            reader.close()
            reader = SlotReader(data, 0, position)
    frames += drain(reader)
    reader.close()
    slot.close()
    assert expected == events_of(frames)
    assert list(range(len(expected))) == [frame.first_number for frame in frames]


@pytest.mark.parametrize("damage", [b"\0", b"torn"], ids=["zeros", "other bytes"])
def test_reading_to_the_end_skips_damage_in_the_newest_segment(
    data: DataDir, slot: Slot, damage: bytes
) -> None:
    slot.write(b"1")
    damaged = slot.write(b"2")
    last = slot.write(b"3")
    length = last.offset - damaged.offset
    os.pwrite(slot.segment.fd, (damage * length)[:length], damaged.offset)
    reader = SlotReader(data, 0, Position())
    assert [b"1", b"3"] == events_of(reader.read_to_end())
    reader.close()
