"""Letting the oldest events expire: whole segments, counted by the numbers of their events."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pixelfast.spool import (
    DataDir,
    LogEnd,
    Position,
    SlotReader,
    excess_bytes,
    expire_oldest,
)
from tests.spool.tools import Slot, drain, events_of, read_events


@pytest.fixture
def four(data: DataDir, slot: Slot) -> Iterator[Slot]:
    """Segments of 1, 2, 3 and 4 events, the last one written still; one made ahead."""
    number = 0
    for count in range(1, 5):
        slot.write(*[b"%d" % (number + n) for n in range(count)])
        number += count
        if count < 4:
            slot.roll()
    ahead = slot.files.create()
    assert [1, 2, 3, 4, 5] == data.segments(0)
    yield slot
    os.close(ahead.fd)


def test_the_oldest_go_until_there_is_room(data: DataDir, four: Slot) -> None:
    one = four.path(1).stat().st_size
    assert expire_oldest(data, 0, 0) == []
    assert expire_oldest(data, 0, one + 1) == [(1, 1), (2, 2)]
    assert [3, 4, 5] == data.segments(0)


def test_what_is_written_never_goes(data: DataDir, four: Slot) -> None:
    assert expire_oldest(data, 0, 2**40) == [(1, 1), (2, 2), (3, 3)]
    four.write(b"more")
    assert read_events(data) == [b"6", b"7", b"8", b"9", b"more"]
    assert expire_oldest(data, 0, 2**40) == []


def test_a_destination_counts_what_expired_before_it_was_read(data: DataDir, four: Slot) -> None:
    del four
    reader = SlotReader(data, 0, Position())
    first = reader.read()
    assert events_of(first) == [b"0"]
    expire_oldest(data, 0, 2**40)
    drain(reader)
    assert (5, 10) == (reader.missing_events, reader.next_number)
    reader.close()


def test_a_segment_without_events_counts_none(data: DataDir, slot: Slot) -> None:
    slot.roll()
    slot.write(b"1", b"2")
    slot.roll()
    slot.write(b"3")
    assert expire_oldest(data, 0, 2**40) == [(1, 0), (2, 2)]


def test_damaged_frames_are_counted_by_the_numbers_around_them(data: DataDir, four: Slot) -> None:
    four.path(2).write_bytes(b"\xff" * 500)
    assert expire_oldest(data, 0, 2**40) == [(1, 3), (2, 0), (3, 3)]


def test_a_commit_that_stands_in_two_segments_is_counted_once(data: DataDir, slot: Slot) -> None:
    slot.write(b"0")
    slot.put(slot.image(b"1", b"2"))
    slot.roll(is_sound=False)
    slot.write(b"1", b"2")
    slot.roll()
    slot.write(b"3")
    assert expire_oldest(data, 0, 2**40) == [(1, 1), (2, 2)]


def test_what_a_slot_takes_too_much_is_told(
    data: DataDir, four: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, _ = LogEnd(data, 0).refresh()
    used = sum(four.path(n).stat().st_size for n in (1, 2, 3)) + four.segment.offset
    assert excess_bytes(data, 0, end, used) == 0
    assert excess_bytes(data, 0, end, used - 7) == 7
    monkeypatch.setattr("pixelfast.spool.retention.free_bytes", lambda path: 1000 * bool(path))
    assert excess_bytes(data, 0, end, used, min_free=1000) == 0
    assert excess_bytes(data, 0, end, used, min_free=1010) == 10
    assert excess_bytes(data, 0, end, used - 20, min_free=1010) == 20


def test_a_slot_that_is_not_there_has_nothing_to_expire(data: DataDir) -> None:
    assert expire_oldest(data, 7, 100) == []
    assert excess_bytes(data, 7, Position(), 100) == 0
