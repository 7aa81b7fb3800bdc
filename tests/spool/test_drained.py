"""A slot without a writer is removed once it was read completely; its numbers are not reused."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pixelfast.errors import SpoolLocked
from pixelfast.spool import (
    DataDir,
    LogEnd,
    Position,
    SlotFiles,
    SlotReader,
    remove_drained_slot,
)
from tests.leaks import open_fds
from tests.spool.tools import drain, events_of, read_events
from tests.spools import SEGMENT_BYTES, Slot


def write_slot(data: DataDir, number: int = 0) -> tuple[Position, int]:
    """Write two segments with three events and close them; return the end of the log."""
    slot = Slot(data, number)
    slot.write(b"1", b"2")
    slot.roll()
    slot.write(b"3")
    end = Position(2, slot.segment.offset), slot.next_number
    slot.close()
    return end


def test_a_drained_slot_is_removed_and_keeps_its_numbers(data: DataDir) -> None:
    end, next_number = write_slot(data)
    before = open_fds()
    assert remove_drained_slot(data, 0, [end, end])
    assert before == open_fds()
    assert data.slots() == []
    assert (end, next_number) == LogEnd(data, 0).refresh()
    slot = Slot(data)
    assert (3, 3) == (slot.segment.id.number, slot.next_number)
    slot.write(b"4")
    reader = SlotReader(data, 0, end)
    assert events_of(drain(reader)) == [b"4"]
    assert reader.missing_segments == 0
    reader.close()
    slot.close()


def test_a_slot_that_is_removed_twice_without_an_event_keeps_its_numbers(data: DataDir) -> None:
    end, next_number = write_slot(data)
    assert remove_drained_slot(data, 0, [end])
    for segment in (3, 4, 5):
        slot = Slot(data)
        assert (segment, next_number) == (slot.segment.id.number, slot.next_number)
        assert (end, next_number) == LogEnd(data, 0).refresh()
        slot.close()
        assert remove_drained_slot(data, 0, [end])


@pytest.mark.parametrize("behind", ["none", "earliest", "before", "beyond"])
def test_a_slot_that_a_destination_has_not_read_stays(data: DataDir, behind: str) -> None:
    end, _ = write_slot(data)
    cursors = {
        "none": [],
        "earliest": [end, Position()],
        "before": [end, Position(2, 64)],
        "beyond": [end, Position(3, 64)],
    }
    assert not remove_drained_slot(data, 0, cursors[behind])
    assert read_events(data) == [b"1", b"2", b"3"]
    assert not data.high_water_path(0).exists()


def test_a_slot_that_is_written_stays(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    assert not remove_drained_slot(data, 0, [Position(1, slot.segment.offset)])
    assert read_events(data) == [b"1"]


def test_a_slot_without_events_is_removed_at_once(data: DataDir) -> None:
    Slot(data).close()
    assert remove_drained_slot(data, 0, [Position()])
    assert data.slots() == []
    slot = Slot(data)
    assert (2, 0) == (slot.segment.id.number, slot.next_number)
    slot.close()


def test_a_slot_with_foreign_files_stays(data: DataDir) -> None:
    end, _ = write_slot(data)
    (data.slot_dir(0) / "notes.txt").touch()
    assert not remove_drained_slot(data, 0, [end])
    assert read_events(data) == [b"1", b"2", b"3"]


def test_a_missing_slot_is_not_an_error(data: DataDir) -> None:
    assert not remove_drained_slot(data, 7, [Position()])
    assert data.slots() == []


@pytest.mark.parametrize("after", range(9))
def test_a_crash_at_any_step_loses_no_number(
    data: DataDir, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    end, next_number = write_slot(data)
    steps = iter(range(after))

    class Crash(Exception):
        pass

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                raise Crash
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir", "replace"):
            patch.setattr(type(data.path), name, counted(getattr(type(data.path), name)))
        patch.setattr(os, "fsync", counted(os.fsync))
        try:
            remove_drained_slot(data, 0, [end])
        except Crash:
            pass
        else:
            assert after > 4
    slot = Slot(data)
    assert next_number == slot.next_number
    assert slot.segment.id.number == 3
    slot.write(b"4")
    assert read_events(data, end) == [b"4"]
    slot.close()


def test_the_record_is_on_the_disk_before_the_first_segment_is_removed(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, _ = write_slot(data)
    synced: list[set[str]] = []

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.name == "shards":
            synced.append({p.name for p in (data.path / "shards").rglob("*")})

    monkeypatch.setattr(os, "fsync", fsync)
    assert remove_drained_slot(data, 0, [end])
    assert synced[0] >= {"0.last", "0000000000000001.seg", "0000000000000002.seg"}
    assert synced[-1] == {"0.last"}


def test_a_damaged_record_is_replaced_by_unused_numbers(data: DataDir, logs: list[Any]) -> None:
    end, next_number = write_slot(data)
    remove_drained_slot(data, 0, [end])
    data.high_water_path(0).write_bytes(b"{torn")
    slot = Slot(data)
    assert slot.segment.id.number > 1_700_000_000
    assert slot.next_number > 10**18 > next_number
    assert "high_water_damaged" in {entry["event"] for entry in logs}
    slot.close()


def test_writers_that_start_while_slots_are_removed_lose_nothing(data: DataDir) -> None:
    """Writers open, write and release a slot while another thread removes it whenever possible."""
    written: list[tuple[int, int]] = []  # segment and number of each event
    errors: list[BaseException] = []
    is_over = threading.Event()
    removed: list[bool] = []

    def remove() -> None:
        try:
            while not is_over.is_set():
                removed.append(remove_drained_slot(data, 0, [LogEnd(data, 0).refresh()[0]]))
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    def write() -> None:
        try:
            while removed.count(True) < 10 and not errors:
                try:
                    slot = Slot(data)
                except SpoolLocked:
                    continue
                slot.write(b"x")
                written.append((slot.segment.id.number, slot.next_number - 1))
                slot.close()
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=remove) for _ in range(2)]
    writers = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads + writers:
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({segment for segment, _ in written}) == len(written)
    assert list(range(len(written))) == sorted(number for _, number in written)


def test_a_removed_lock_file_is_locked_again(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, _ = write_slot(data)
    real = os.open
    is_first = True

    def open_late(path: Any, flags: int, mode: int = 0o777) -> int:
        nonlocal is_first
        fd = real(path, flags, mode)
        if is_first and str(path).endswith("writer.lock"):
            is_first = False
            assert remove_drained_slot(data, 0, [end])
        return fd

    monkeypatch.setattr(os, "open", open_late)
    files = SlotFiles(data, 0, SEGMENT_BYTES)
    assert (data.slot_dir(0) / "writer.lock").exists()
    with pytest.raises(SpoolLocked):
        SlotFiles(data, 0, SEGMENT_BYTES)
    files.close()
