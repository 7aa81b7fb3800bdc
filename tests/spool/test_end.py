"""The end of a slot's log: found quickly in a spool of any size, and followed from then on."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from pixelfast.spool import DataDir, LogEnd, Position, SlotFiles, end, newest_frames, number_at
from pixelfast.spool.end import last_frame, newest_frame
from pixelfast.spool.format import SegmentId, pack_segment_header, segment_name
from tests.spool.tools import read_events, read_frames
from tests.spools import Slot, seal

MIB = 2**20


def behind(slot: Slot) -> tuple[Position, int]:
    return Position(slot.segment.id.number, slot.segment.offset), slot.next_number


def test_the_end_is_followed_frame_by_frame(data: DataDir, slot: Slot) -> None:
    follower = LogEnd(data, 0)
    assert (Position(), 0) == follower.refresh()
    for number in range(40):
        slot.write(*[b"x" * (number * 37 % 300)] * (1 + number % 3))
        if number % 3:
            assert behind(slot) == follower.refresh() == LogEnd(data, 0).refresh()
        if number % 7 == 6:
            slot.roll(is_sound=number % 2 == 0)
            follower.refresh()
    assert behind(slot) == follower.refresh()
    assert follower.refresh() == LogEnd(data, 0).refresh()


def test_reading_from_the_end_returns_only_later_events(data: DataDir, slot: Slot) -> None:
    slot.write(b"old")
    position, number = LogEnd(data, 0).refresh()
    assert read_events(data, position) == []
    slot.write(b"new")
    slot.roll()
    slot.write(b"newer")
    frames = read_frames(data, position)
    assert [b"new\n", b"newer\n"] == [bytes(frame.body) for frame in frames]
    assert number == frames[0].first_number


def test_a_segment_made_ahead_does_not_move_the_end(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    follower = LogEnd(data, 0)
    expected = follower.refresh()
    slot.roll()
    assert expected == follower.refresh() == LogEnd(data, 0).refresh()


def test_a_frame_that_is_being_written_is_not_the_end(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    follower = LogEnd(data, 0)
    expected = follower.refresh()
    image = slot.image(b"2" * 200)
    for cut in range(len(image) - 8):
        slot.put(image, 0, cut)
        assert expected == follower.refresh() == LogEnd(data, 0).refresh()
    slot.put(image)
    assert (Position(1, expected[0].offset + len(image)), 2) == follower.refresh()


def test_the_end_is_found_after_damage(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    follower = LogEnd(data, 0)
    follower.refresh()
    damaged = slot.write(b"2")
    slot.write(b"3")
    os.pwrite(slot.segment.fd, b"XXXX", damaged.offset)
    follower.refresh()
    assert behind(slot) == follower.refresh()
    slot.write(b"4")
    assert behind(slot) == follower.refresh()


def test_a_torn_tail_is_not_searched_each_time(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.write(b"1")
    follower = LogEnd(data, 0)
    expected = follower.refresh()
    slot.put(b"torn" * 4)
    looks = []
    monkeypatch.setattr(end, "last_frame", lambda *a: looks.append(a))
    for _ in range(64):
        assert expected == follower.refresh()
    assert len(looks) == 2


def test_a_slot_that_was_created_again_is_read_from_its_beginning(
    data: DataDir, slot: Slot
) -> None:
    slot.roll()
    slot.write(b"1", b"2")
    follower = LogEnd(data, 0)
    assert behind(slot) == follower.refresh()
    slot.path(2).unlink()
    slot.path(1).unlink()
    slot.close()
    anew = Slot(data)
    anew.write(b"1")
    assert (Position(1, 120), 1) == follower.refresh()
    slot.segment, slot.files = anew.segment, anew.files


def test_the_last_frame_is_found_among_any_other_bytes(data: DataDir, slot: Slot) -> None:
    del data
    chance = random.Random(3)
    ends = []
    for number in range(60):
        offset = slot.write(b"PXF1" * chance.randrange(9) + b"%d" % number).offset
        ends.append((offset, slot.segment.offset))
        if slot.segment.offset > 3900:
            break
    fd, identity = slot.segment.fd, slot.segment.id
    for start, stop in reversed(ends):
        place = last_frame(fd, identity)
        assert place is not None
        assert (start, stop) == (place.offset, place.end.offset)
        os.pwrite(fd, chance.randbytes(stop - start), start)
    assert last_frame(fd, identity) is None


@pytest.mark.parametrize("window_bytes", [8, 64, 4096])
def test_the_last_frame_is_found_across_windows(slot: Slot, window_bytes: int) -> None:
    for number in range(9):
        offset = slot.write(b"x" * number * 11).offset
        place = last_frame(slot.segment.fd, slot.segment.id, window_bytes=window_bytes)
        assert place is not None
        assert offset == place.offset


@pytest.mark.parametrize("window_bytes", [8, 64, 136, 4096])
def test_damaged_frames_at_the_end_are_skipped_across_windows(
    slot: Slot, window_bytes: int
) -> None:
    for number in range(9):
        slot.write(b"x" * number * 11)
    expected = slot.write(b"whole").offset
    for _ in range(3):
        slot.write(b"x" * 200)
        os.pwrite(slot.segment.fd, b"?", slot.segment.offset - 20)
    place = last_frame(slot.segment.fd, slot.segment.id, window_bytes=window_bytes)
    assert place is not None
    assert expected == place.offset


def test_a_search_from_the_end_holds_one_window_and_one_frame(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    del slot
    make_segment(data, 2, 5, 2 * MIB, 128)
    with (data.slot_dir(0) / segment_name(2)).open("r+b") as file:
        file.seek(256)
        file.write(b"PXF1" * (MIB // 2 - 64))  # written, so that the search cannot skip it
    read, sizes = os.pread, []

    def pread(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(fd, size, offset)

    with data.open_segment(0, 2) as opened:
        assert opened is not None
        monkeypatch.setattr(os, "pread", pread)
        place = last_frame(*opened)
    assert place is not None
    assert place.offset == 128
    assert max(sizes) <= MIB // 4 + 48


def make_segment(data: DataDir, number: int, first_number: int, size: int, offset: int) -> None:
    """Create a sparse segment of `size` bytes with a frame at its beginning and one at `offset`."""
    identity = SegmentId(data.node, 0, number)
    with (data.slot_dir(0) / segment_name(number)).open("wb") as file:
        file.write(pack_segment_header(identity, 0))
        for place in (64, offset):
            file.seek(place)
            file.write(seal([(0, b"{}")], [b"web"], identity, place, 0, first_number))
            first_number += 1
        file.truncate(size)


@pytest.mark.parametrize("has_large", [False, True])
def test_a_writer_reads_little_of_a_spool_of_10_gib(
    data: DataDir, monkeypatch: pytest.MonkeyPatch, has_large: bool
) -> None:
    data.slot_dir(0).mkdir()
    for number in range(1, 161):
        make_segment(data, number, number * 100, 64 * MIB, 60 * MIB)
    if has_large:
        make_segment(data, 161, 10**6, 2**31, 2**30)
    bytes_read = reads = 0
    real = os.pread

    def pread(fd: int, count: int, offset: int) -> bytes:
        nonlocal bytes_read, reads
        found = real(fd, count, offset)
        bytes_read += len(found)
        reads += 1
        return found

    class Os:
        def __getattr__(self, name: str) -> Any:
            return pread if name == "pread" else getattr(os, name)

    monkeypatch.setattr(end, "os", Os())
    files = SlotFiles(data, 0, 64 * MIB)
    segment = files.create()
    assert (10**6 + 2 if has_large else 16_002) == files.next_number
    assert bytes_read < 64 * MIB
    assert reads < 2000
    files.retire(segment, is_sound=True)
    files.close()


def test_a_slot_without_frames_has_no_newest_one(data: DataDir, slot: Slot) -> None:
    assert newest_frame(data, 5) is None
    assert newest_frame(data, 0) is None
    slot.roll()
    assert newest_frame(data, 0) is None


def test_a_position_is_converted_to_the_number_of_its_event(data: DataDir, slot: Slot) -> None:
    assert number_at(data, 0, Position()) is None
    first = slot.write(b"0", b"1", b"2")
    second = slot.write(b"3")
    after = Position(1, slot.segment.offset)
    assert number_at(data, 0, after) is None
    slot.roll()
    slot.write(b"4")
    slot.next_number += 5  # events that were given up
    last = slot.write(b"10", b"11")
    wanted = {
        Position(): 0,
        first._replace(skip=2): 2,
        second: 3,
        after: 4,
        last._replace(skip=1): 11,
        Position(2, slot.segment.offset): None,
    }
    assert wanted == {position: number_at(data, 0, position) for position in wanted}
    slot.path(1).unlink()
    assert number_at(data, 0, first) == 4


def test_the_newest_frames_are_those_at_the_end_of_the_log(data: DataDir, slot: Slot) -> None:
    assert [] == newest_frames(data, 0)
    for number in range(600):
        slot.write(b"%04d" % number + b"x" * 1000)
    found = [int(bytes(frame.body[:4])) for frame in newest_frames(data, 0)]
    assert list(range(600 - len(found), 600)) == found
    assert 200 <= len(found) <= 256
    assert [frame.offset for frame in read_frames(data, Position())][-len(found) :] == [
        frame.offset for frame in newest_frames(data, 0)
    ]
    slot.roll()
    assert 599 == int(bytes(newest_frames(data, 0)[-1].body[:4])), "made ahead and empty"
    slot.write(b"0600" + b"x" * 400_000)
    assert [b"0600"] == [bytes(frame.body[:4]) for frame in newest_frames(data, 0)]
