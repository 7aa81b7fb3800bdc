"""Freeing disk space: whole segments are removed, and only if every destination has read them."""

from __future__ import annotations

import pytest

from pixelfast.spool import DataDir, Position, remove_read_segments, retention
from tests.spool.tools import read_events
from tests.spools import Slot


@pytest.fixture
def five(data: DataDir, slot: Slot) -> Slot:
    """Write segments 1 to 5, each with one event, which is its number."""
    for number in range(1, 6):
        slot.write(b"%d" % number)
        if number < 5:
            slot.roll()
    assert [1, 2, 3, 4, 5] == data.segments(0)
    return slot


@pytest.mark.parametrize(
    ("cursors", "left"),
    [
        ([3], [3, 4, 5]),
        ([5], [5]),
        ([1], [1, 2, 3, 4, 5]),
        ([0], [1, 2, 3, 4, 5]),
        ([5, 2, 4], [2, 3, 4, 5]),
        ([5, 0, 4], [1, 2, 3, 4, 5]),
        ([], [1, 2, 3, 4, 5]),
    ],
)
def test_only_segments_before_the_earliest_cursor_are_removed(
    data: DataDir, five: Slot, cursors: list[int], left: list[int]
) -> None:
    del five
    assert 5 - len(left) == remove_read_segments(data, 0, cursors)
    assert left == data.segments(0)
    assert [b"%d" % number for number in left] == read_events(data)
    assert remove_read_segments(data, 0, cursors) == 0


def test_cursors_may_come_from_any_iterable(data: DataDir, five: Slot) -> None:
    del five
    assert remove_read_segments(data, 0, (n for n in (4, 3))) == 2


def test_the_newest_segment_stays_so_that_its_number_is_not_used_again(
    data: DataDir, five: Slot
) -> None:
    remove_read_segments(data, 0, [5])
    assert [5] == data.segments(0)
    five.roll()
    assert [5, 6] == data.segments(0)


def test_a_cursor_beyond_the_data_removes_no_segment_in_use(data: DataDir, five: Slot) -> None:
    # The writer is in segment 5 and has made segment 6 ahead.
    ahead = five.files.create()
    remove_read_segments(data, 0, [99])
    five.write(b"more")
    assert [5, 6] == data.segments(0)[-2:]
    assert read_events(data, Position(5)) == [b"5", b"more"]
    five.files.retire(ahead, is_sound=True)


def test_the_newest_segment_stays_for_any_cursors(data: DataDir, five: Slot) -> None:
    del five
    remove_read_segments(data, 0, [99])
    assert data.segments(0)[-1] == 5
    assert read_events(data, Position(5)) == [b"5"]


def test_the_written_segment_stays_if_another_was_made_ahead(data: DataDir, five: Slot) -> None:
    ahead = five.files.create()
    assert remove_read_segments(data, 0, [5]) == 4
    assert [5, 6] == data.segments(0)
    five.files.retire(ahead, is_sound=True)


def test_other_files_and_other_slots_stay(data: DataDir, five: Slot) -> None:
    del five
    other = Slot(data, 1)
    other.roll()
    (data.slot_dir(0) / "notes.txt").touch()
    remove_read_segments(data, 0, [5])
    names = {path.name for path in data.slot_dir(0).iterdir()}
    assert names == {"writer.lock", "notes.txt", "0000000000000005.seg"}
    assert [1, 2] == data.segments(1)
    other.close()


def test_a_missing_slot_is_not_an_error(data: DataDir) -> None:
    assert remove_read_segments(data, 7, [3]) == 0


def test_removed_segments_stay_removed_after_a_power_failure(
    data: DataDir, five: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    del five
    synced: list[object] = []
    monkeypatch.setattr(retention, "sync_directory", synced.append)
    remove_read_segments(data, 0, [1])
    assert synced == []
    remove_read_segments(data, 0, [3])
    assert [data.slot_dir(0)] == synced


def test_a_segment_removed_by_another_process_is_not_an_error(data: DataDir, five: Slot) -> None:
    five.path(1).unlink()

    class Stale(DataDir):
        def segments(self, slot: int) -> list[int]:
            return [1, *super().segments(slot)]

    assert remove_read_segments(Stale(data.path, data.node), 0, [3]) == 1
    assert [3, 4, 5] == data.segments(0)
