"""Recycled segments: selection, the steps of recycling, readers, and data of format 1."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixelfast.errors import SpoolError
from pixelfast.spool import (
    DataDir,
    LogEnd,
    Position,
    SlotFiles,
    SlotReader,
    newest_frames,
    number_at,
    remove_drained_slot,
    remove_read_segments,
)
from pixelfast.spool.format import SegmentId, pack_segment_header, segment_name, spare_name
from tests.leaks import open_fds
from tests.spool.recycled import fill, fill_spare, recycle, spare_inode, start_recycled
from tests.spool.test_recovery import copies
from tests.spool.tools import drain, events_of, read_events
from tests.spools import SEGMENT_BYTES, Slot


def fill_and_roll(slot: Slot, count: int = 1) -> None:
    for _ in range(count):
        fill(slot)
        slot.roll()
    slot.write(b"newest")


def start_again(slot: Slot) -> None:
    """Let another writer open the slot after a crash."""
    slot.close()
    again = Slot(slot.data)
    slot.segment, slot.files, slot.next_number = again.segment, again.files, again.next_number


# --- which segments are recycled --------------------------------------------------------------


def test_a_segment_that_was_read_becomes_a_spare_and_then_the_next_segment(
    data: DataDir, slot: Slot
) -> None:
    fill_and_roll(slot)
    inode = slot.path(1).stat().st_ino
    recycle(slot)
    assert ([2], [1], inode) == (data.segments(0), data.spares(0), spare_inode(data))
    slot.roll()
    assert ([2, 3], []) == (data.segments(0), data.spares(0))
    assert inode == slot.path(3).stat().st_ino
    image = slot.path(3).read_bytes()
    assert SEGMENT_BYTES == len(image)
    identity = SegmentId(data.node, 0, 3)
    assert image[:40] == pack_segment_header(identity, 0)[:40]
    assert bytes(48) == image[64:112]
    assert b"old-" in image[112:]


def test_nothing_is_recycled_without_a_segment_length(data: DataDir, slot: Slot) -> None:
    fill_and_roll(slot)
    assert remove_read_segments(data, 0, [2]) == 1
    assert ([2], []) == (data.segments(0), data.spares(0))


def test_a_slot_has_at_most_two_spares(data: DataDir, slot: Slot) -> None:
    fill_and_roll(slot, 4)
    assert remove_read_segments(data, 0, [5], recycled_bytes=SEGMENT_BYTES) == 4
    assert ([5], [1, 2]) == (data.segments(0), data.spares(0))
    fill_and_roll(slot)
    fill_and_roll(slot)
    assert ([5, 6, 7], []) == (data.segments(0), data.spares(0))


def fail(slot: Slot) -> None:
    slot.files.retire(slot.segment, is_sound=False)
    slot.segment = slot.files.create()


def crash(slot: Slot) -> None:
    slot.roll(is_sound=False)


def move(slot: Slot) -> None:
    slot.roll()
    path = slot.path(slot.segment.id.number - 1)
    header = pack_segment_header(SegmentId(slot.data.node, 1, 9), 0)
    path.write_bytes(header + path.read_bytes()[64:])


def age(slot: Slot) -> None:
    slot.roll()
    path = slot.path(slot.segment.id.number - 1)
    header = pack_segment_header(SegmentId(slot.data.node, 0, 1, 1), 0)
    path.write_bytes(header + path.read_bytes()[64:])


def damage_the_header(slot: Slot) -> None:
    slot.roll()
    path = slot.path(slot.segment.id.number - 1)
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def damage_a_frame(slot: Slot) -> None:
    slot.roll()
    path = slot.path(slot.segment.id.number - 1)
    image = bytearray(path.read_bytes())
    image[100] ^= 1
    path.write_bytes(image)
    slot.write(b"behind")
    read_events(slot.data)
    assert len(copies(slot.data)) == 1


@pytest.mark.parametrize(
    "leave", [fail, crash, move, age, damage_the_header, damage_a_frame], ids=lambda f: f.__name__
)
def test_a_segment_that_was_not_closed_cleanly_is_removed(
    data: DataDir, slot: Slot, leave: Callable[[Slot], None]
) -> None:
    fill(slot)
    leave(slot)
    slot.write(b"newest")
    recycle(slot)
    assert ([2], []) == (data.segments(0), data.spares(0))


@pytest.mark.parametrize(("keep", "spares"), [(0, [1]), (200, [1]), (300, []), (2000, [])])
def test_a_segment_shorter_than_15_sixteenths_is_removed(
    data: DataDir, slot: Slot, keep: int, spares: list[int]
) -> None:
    fill(slot, keep=keep)
    assert (slot.segment.offset >= 15 * SEGMENT_BYTES // 16) is bool(spares)
    slot.roll()
    slot.write(b"newest")
    recycle(slot)
    assert ([2], spares) == (data.segments(0), data.spares(0))


def test_a_segment_longer_than_new_ones_is_removed(data: DataDir, slot: Slot) -> None:
    fill_and_roll(slot)
    remove_read_segments(data, 0, [2], recycled_bytes=SEGMENT_BYTES // 2)
    assert ([2], []) == (data.segments(0), data.spares(0))


def test_a_failed_segment_is_truncated_unless_it_would_look_recyclable(
    slot: Slot,
) -> None:
    slot.write(b"1")
    end = slot.segment.offset
    slot.put(slot.image(b"failed"))
    fail(slot)
    assert end == slot.path(1).stat().st_size
    fill(slot)
    fail(slot)
    assert SEGMENT_BYTES == slot.path(2).stat().st_size


@pytest.mark.parametrize("failing", ["ftruncate", "fsync"])
def test_a_segment_that_fails_while_it_is_closed_is_not_recycled(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    fill(slot)
    real = getattr(os, failing)
    calls: list[int] = []

    def fail_once(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(5, "no")
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail_once)
        with pytest.raises(OSError, match="no"):
            slot.files.retire(slot.segment, is_sound=True)
    slot.segment = slot.files.create()
    slot.write(b"newest")
    recycle(slot)
    assert ([2], []) == (data.segments(0), data.spares(0))


# --- which spares are used --------------------------------------------------------------------


def of_another_slot(data: DataDir) -> bytes:
    return pack_segment_header(SegmentId(data.node, 7, 1), 0) + bytes(SEGMENT_BYTES - 64)


def of_another_node(data: DataDir) -> bytes:
    del data
    return pack_segment_header(SegmentId(bytes(16), 0, 1), 0) + bytes(SEGMENT_BYTES - 64)


def of_version_1(data: DataDir) -> bytes:
    return pack_segment_header(SegmentId(data.node, 0, 1, 1), 0) + bytes(SEGMENT_BYTES - 64)


def short(data: DataDir) -> bytes:
    return pack_segment_header(SegmentId(data.node, 0, 1), 0) + bytes(SEGMENT_BYTES // 2)


def long(data: DataDir) -> bytes:
    return pack_segment_header(SegmentId(data.node, 0, 1), 0) + bytes(SEGMENT_BYTES)


def without_a_header(data: DataDir) -> bytes:
    del data
    return bytes(SEGMENT_BYTES)


@pytest.mark.parametrize(
    "make",
    [of_another_slot, of_another_node, of_version_1, short, long, without_a_header],
    ids=lambda f: f.__name__,
)
def test_an_invalid_spare_is_removed_and_not_used(
    data: DataDir, slot: Slot, make: Callable[[DataDir], bytes]
) -> None:
    path = data.slot_dir(0) / spare_name(1)
    path.write_bytes(make(data))
    inode = path.stat().st_ino
    slot.write(b"1")
    slot.roll()
    assert inode != slot.path(2).stat().st_ino
    assert data.spares(0) == []


def test_segments_that_a_crash_left_unused_become_spares(data: DataDir, slot: Slot) -> None:
    slot.write(b"1")
    slot.roll(is_sound=False)  # 2 is made ahead and never used
    inode = slot.path(2).stat().st_ino
    start_again(slot)
    assert (3, inode) == (slot.segment.id.number, os.fstat(slot.segment.fd).st_ino)
    assert ([1, 3], []) == (data.segments(0), data.spares(0))


def test_repeated_crashes_leave_one_segment_and_two_spares(data: DataDir) -> None:
    first = Slot(data)
    first.close()  # as after a crash: nothing is truncated
    for _ in range(5):
        slot = Slot(data)
        slot.files.create()
        os.close(slot.segment.fd + 1)
        slot.close()
    assert len(data.segments(0)) + len(data.spares(0)) <= 5
    # The first one stays, for a reader that waits there.
    assert data.segments(0)[0] == 1
    reader = SlotReader(data, 0, Position())
    assert drain(reader) == []
    assert reader.position.segment == 1
    slot = Slot(data)
    slot.write(b"1")
    assert events_of(drain(reader)) == [b"1"]
    assert reader.missing_segments == 0
    reader.close()
    slot.close()


def test_the_number_of_a_spare_is_not_used_again(data: DataDir, slot: Slot) -> None:
    (data.slot_dir(0) / spare_name(0x50)).write_bytes(b"")
    start_again(slot)
    assert slot.segment.id.number == 0x51


# --- the steps of recycling ---------------------------------------------------------------------


def test_each_step_of_recycling_is_on_the_disk_before_the_next_one(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_and_roll(slot)
    steps: list[str] = []

    def record(name: str, real: Any) -> Any:
        def step(what: Any, *arguments: Any) -> Any:
            is_directory = isinstance(what, int) and stat.S_ISDIR(os.fstat(what).st_mode)
            steps.append(f"{name} directory" if is_directory else name)
            return real(what, *arguments)

        return step

    with monkeypatch.context() as patch:
        for name in ("rename", "fsync", "pwrite", "unlink"):
            patch.setattr(os, name, record(name, getattr(os, name)))
        recycle(slot)
        assert ["rename", "fsync directory"] == steps
        steps.clear()
        slot.files.retire(slot.segment, is_sound=True)
        steps.clear()
        slot.segment = slot.files.create()
    expected = ["fsync directory", "pwrite", "fsync", "rename", "fsync directory"]
    assert expected == steps


@pytest.mark.parametrize("can_be_removed", [True, False])
@pytest.mark.parametrize("failing", ["open", "posix_fallocate", "pwrite", "fsync", "rename"])
def test_a_spare_that_fails_while_it_is_recycled_is_never_used_again(
    data: DataDir,
    slot: Slot,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    can_be_removed: bool,
) -> None:
    fill_and_roll(slot)
    recycle(slot)
    held = os.open(data.slot_dir(0) / spare_name(1), os.O_RDONLY | os.O_CLOEXEC)  # its inode
    before = open_fds()

    def failing_for_spares(real: Any) -> Any:
        def fail(what: Any, *arguments: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)  # noqa: PTH115
            if path.endswith(".spare"):
                raise OSError(5, "no")
            return real(what, *arguments)

        return fail

    with monkeypatch.context() as patch:
        for name in [failing, "unlink"][: 1 if can_be_removed else 2]:
            patch.setattr(os, name, failing_for_spares(getattr(os, name)))
        with pytest.raises(OSError, match="no"):
            slot.files.create()
    assert before.keys() == open_fds().keys()
    following = slot.files.create()
    assert not os.path.samestat(os.fstat(held), os.fstat(following.fd))
    assert data.spares(0) == []
    slot.files.retire(following, is_sound=True)
    os.close(held)


@pytest.mark.parametrize("after", range(12))
def test_a_crash_between_two_steps_loses_and_repeats_no_event(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    fill_and_roll(slot)
    steps = iter(range(after))

    class Crash(BaseException):
        pass

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                raise Crash
            return real(*arguments, **options)

        return step

    is_over = False
    with monkeypatch.context() as patch:
        for name in ("rename", "fsync", "pwrite", "unlink", "ftruncate", "posix_fallocate"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            recycle(slot)
            slot.segment = slot.files.create()
            is_over = True
        except Crash:
            pass
    assert is_over is (after >= 8)
    start_again(slot)
    slot.write(b"afterwards")
    assert read_events(data, Position(2)) == [b"newest", b"afterwards"]
    assert slot.next_number == number_at(data, 0, Position(2)) + 2  # type: ignore[operator]
    recycle(slot)
    assert read_events(data, Position(slot.segment.id.number)) == [b"afterwards"]
    assert copies(data) == []


# --- readers ------------------------------------------------------------------------------------


def of_the_same_slot(data: DataDir) -> SegmentId:
    return SegmentId(data.node, 0, 1)


def of_other_slot(data: DataDir) -> SegmentId:
    return SegmentId(data.node, 5, 3)


def of_format_1(data: DataDir) -> SegmentId:
    return SegmentId(data.node, 0, 1, 1)


def of_format_1_with_this_number(data: DataDir) -> SegmentId:
    return SegmentId(data.node, 5, 3, 1)


@pytest.mark.parametrize(
    "stale",
    [of_the_same_slot, of_other_slot, of_format_1, of_format_1_with_this_number],
    ids=lambda f: f.__name__,
)
def test_old_frames_are_neither_read_nor_followed_nor_reported_as_damage(
    data: DataDir, slot: Slot, stale: Callable[[DataDir], SegmentId]
) -> None:
    fill_and_roll(slot)
    recycle(slot)
    fill_spare(slot, 1, stale(data))
    slot.roll()
    assert not data.has_frame(0, 3)
    first = slot.next_number
    follower = LogEnd(data, 0)
    expected = [b"newest"]
    reader = SlotReader(data, 0, Position(2))
    assert expected == events_of(drain(reader))
    for n in range(20):
        event = b"%0*d" % (1 + 5 * n, n)
        expected.append(event)
        slot.write(event)
        assert event == events_of(drain(reader, 130))[-1]
        end = slot.position, slot.next_number
        assert end == follower.refresh() == LogEnd(data, 0).refresh()
        assert expected == read_events(data, Position(2))
        assert expected[1:] == events_of(newest_frames(data, 0))
        assert slot.next_number - 1 == first + n
        assert number_at(data, 0, slot.position) is None
    slot.roll(is_sound=False)
    slot.write(b"later")
    assert [b"later"] == events_of(drain(reader))
    assert (0, 0, 0) == (reader.damaged_bytes, reader.missing_events, reader.missing_segments)
    assert copies(data) == []
    reader.close()


def test_an_old_frame_may_begin_exactly_where_a_valid_one_ends(data: DataDir, slot: Slot) -> None:
    # All frames have the same length, and the zeros after the commit did not reach the disk.
    number = start_recycled(slot)
    stale = slot.path(number).read_bytes()
    for n in range(5):
        slot.write(b"new-%010d" % n)
        os.pwrite(slot.segment.fd, stale[slot.segment.offset :][:48], slot.segment.offset)
        end = slot.position, slot.next_number
        assert end == LogEnd(data, 0).refresh()
        assert n + 1 == len(newest_frames(data, 0))
    assert number_at(data, 0, slot.position) is None
    slot.roll(is_sound=False)
    slot.write(b"later")
    expected = [b"between", *(b"new-%010d" % n for n in range(5)), b"later"]
    assert expected == read_events(data)
    assert copies(data) == []


@pytest.mark.parametrize("has_later", [False, True])
@pytest.mark.parametrize("lost", [{1}, {1, 2}, {1, 3}, {1, 2, 3}, {4}, {3, 4}])
def test_an_old_frame_may_end_exactly_where_a_valid_one_begins(
    data: DataDir, slot: Slot, lost: set[int], has_later: bool
) -> None:
    # With ack = written, a power cut may keep a commit and lose the one before it.
    number = start_recycled(slot)
    stale = slot.path(number).read_bytes()
    starts = [slot.write(b"new-%010d" % n).offset for n in range(5)]
    ends = [*starts[1:], slot.segment.offset]
    for n in sorted(lost):
        os.pwrite(slot.segment.fd, stale[starts[n] : ends[n]], starts[n])
    kept = [n for n in range(5) if n not in lost]
    end = Position(number, ends[kept[-1]])
    found = LogEnd(data, 0).refresh()
    assert (end, slot.next_number - 5 + kept[-1] + 1) == found
    later = [b"later"] * has_later
    if has_later:
        slot.roll(is_sound=False)
        slot.write(b"later")
    reader = SlotReader(data, 0, Position())
    assert [b"between", *(b"new-%010d" % n for n in kept), *later] == events_of(drain(reader))
    gaps = lost if has_later else {n for n in lost if n < kept[-1]}
    assert (len(gaps), 0) == (reader.missing_events, reader.repeated_events)
    reader.close()


@pytest.mark.parametrize("has_later", [False, True])
@pytest.mark.parametrize("has_zeros", [False, True])
def test_a_torn_write_over_old_frames_damages_no_other_frame(
    data: DataDir, slot: Slot, has_later: bool, has_zeros: bool
) -> None:
    number = start_recycled(slot)
    slot.write(b"new-%010d" % 0)
    stale = slot.path(number).read_bytes()
    start = slot.segment.offset
    image = slot.image(b"torn-%021d" % 1)
    fd = os.open(slot.path(number), os.O_RDWR | os.O_CLOEXEC)
    later = [b"later"] * has_later
    if has_later:
        slot.roll(is_sound=False)
        slot.write(b"later")
    behind = bytes(48) if has_zeros else stale[start : start + 48]
    for kept in range(len(image)):
        torn = (image[:kept] + behind)[: max(kept, 48)]
        os.pwrite(fd, torn + stale[start + len(torn) :], start)
        if image == os.pread(fd, len(image), start):
            continue  # the old bytes end in the same way
        assert [b"between", b"new-%010d" % 0, *later] == read_events(data), f"{kept} bytes"
        damaged = [copy.stat().st_size for copy in copies(data)]
        assert sum(damaged) <= len(image)
        for copy in copies(data):
            copy.unlink()
    os.close(fd)


def test_a_torn_frame_is_quarantined_up_to_its_own_length(data: DataDir, slot: Slot) -> None:
    number = start_recycled(slot)
    slot.write(b"1")
    start, image = slot.segment.offset, slot.image(b"torn" * 20)
    slot.put(image, 0, 60)
    slot.roll(is_sound=False)
    slot.write(b"later")
    reader = SlotReader(data, 0, Position())
    assert events_of(drain(reader)) == [b"between", b"1", b"later"]
    assert len(image) - 8 < reader.damaged_bytes <= len(image)  # without the zeros at the end
    (copy,) = copies(data)
    assert copy.name == f"0-{number:016x}-{start:08x}.bad"
    assert reader.damaged_bytes == copy.stat().st_size
    reader.close()


def test_a_flipped_bit_in_a_recycled_segment_damages_only_its_frame(
    data: DataDir, slot: Slot
) -> None:
    number = start_recycled(slot)
    events = [b"%d" % n * (n + 1) for n in range(3)]
    ranges = [(slot.write(event).offset, slot.segment.offset) for event in events]
    slot.roll(is_sound=False)
    slot.write(b"later")
    image = slot.path(number).read_bytes()
    fd = os.open(slot.path(number), os.O_RDWR | os.O_CLOEXEC)
    for bit in range(8 * (ranges[-1][1] + 48)):
        at = bit // 8
        os.pwrite(fd, bytes([image[at] ^ 1 << bit % 8]), at)
        left = [e for e, (a, b) in zip(events, ranges, strict=True) if not a <= at < b]
        assert [b"between", *left, b"later"] == read_events(data), f"bit {bit}"
        os.pwrite(fd, image[at : at + 1], at)
    os.close(fd)


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize("has_read", [1, 5, "all"])
def test_a_slow_reader_of_a_recycled_segment_continues_with_the_next_one(
    data: DataDir, slot: Slot, logs: list[Any], has_read: int | str, is_command: bool
) -> None:
    damage: list[tuple[int, int, int]] = []
    old = fill(slot)
    on_damage = (lambda *found: damage.append(found)) if is_command else None
    reader = SlotReader(data, 0, Position(), on_damage=on_damage)
    read = len(old) if has_read == "all" else int(has_read)
    seen = events_of(frames := reader.read())
    if has_read != "all":
        reader.rewind(frames[read])
        seen = seen[:read]
    while has_read == "all" and (found := reader.read()):
        seen += events_of(found)
    assert old[:read] == seen
    slot.roll()
    slot.write(b"between")
    recycle(slot)
    slot.roll()
    events = fill(slot, b"new-%010d")  # frames of the same length over the old ones
    assert [b"between", *events] == events_of(drain(reader))
    is_missing = has_read != "all"
    assert (len(old) - read, int(is_missing)) == (reader.missing_events, reader.missing_segments)
    assert reader.damaged_bytes == 0
    told = [entry["event"] for entry in logs]
    assert (["segment_missing"] if is_missing else []) == told
    assert ([], []) == (damage, copies(data))
    reader.close()


def test_a_segment_recycled_while_a_reader_opens_it_is_not_reported_as_moved(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(slot)
    slot.roll()
    slot.write(b"between")
    reader = SlotReader(data, 0, Position())
    real = os.open

    def open_and_wait(path: Any, flags: int, mode: int = 0o777) -> int:
        fd = real(path, flags, mode)
        if str(path).endswith(segment_name(1)) and not flags & os.O_CREAT:
            monkeypatch.setattr(os, "open", real)
            recycle(slot)
            slot.roll()
            slot.write(b"new")
        return fd

    monkeypatch.setattr(os, "open", open_and_wait)
    assert events_of(drain(reader)) == [b"between", b"new"]
    assert (0, 0, 0) == (reader.damaged_bytes, reader.missing_events, reader.repeated_events)
    reader.close()


def test_a_reader_continues_in_a_recycled_segment_while_its_frames_exist(
    data: DataDir, slot: Slot
) -> None:
    old = fill(slot)
    reader = SlotReader(data, 0, Position())
    reader.rewind(reader.read()[5])
    slot.roll()
    slot.write(b"between")
    recycle(slot)
    slot.roll()
    slot.write(b"new")
    assert [*old[5:], b"between", b"new"] == events_of(drain(reader))
    assert (0, 0, 0) == (reader.missing_events, reader.missing_segments, reader.damaged_bytes)
    reader.close()


def test_open_segment_yields_none_if_the_segment_is_recycled_meanwhile(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_and_roll(slot)
    real = os.pread

    def read_late(fd: int, count: int, offset: int) -> bytes:
        if offset == 0:
            monkeypatch.setattr(os, "pread", real)
            recycle(slot)
            slot.roll()
            slot.write(b"new")
        return real(fd, count, offset)

    monkeypatch.setattr(os, "pread", read_late)
    with data.open_segment(0, 1) as opened:
        assert opened is None


def test_a_segment_that_is_recycled_meanwhile_is_not_taken_for_one_with_frames(
    data: DataDir, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_and_roll(slot)
    real = os.pread

    def read_late(fd: int, count: int, offset: int) -> bytes:
        monkeypatch.setattr(os, "pread", real)
        recycle(slot)
        slot.roll()
        slot.write(b"new")
        return real(fd, count, offset)

    monkeypatch.setattr(os, "pread", read_late)
    assert not data.has_frame(0, 1)
    assert (False, 3) == (data.has_frame(0, 1), data.newest_written(0))


# --- slots --------------------------------------------------------------------------------------


def test_a_drained_slot_is_removed_with_its_spares_and_keeps_their_numbers(
    data: DataDir, slot: Slot
) -> None:
    fill_and_roll(slot)
    recycle(slot)
    end = LogEnd(data, 0).refresh()[0]
    slot.files.retire(slot.segment, is_sound=True)
    slot.files.close()
    (data.slot_dir(0) / spare_name(9)).write_bytes(b"")
    assert remove_drained_slot(data, 0, [end])
    assert data.slots() == []
    again = Slot(data)
    assert 10 == again.segment.id.number
    slot.segment, slot.files = again.segment, again.files


def test_compressed_bodies_are_read_from_recycled_segments(data: DataDir, slot: Slot) -> None:
    from tests.spool.test_compression import write_compressed

    events = [b"%0600d" % n for n in range(4)]
    number = 0
    for n in range(200):
        if slot.files.segment_bytes - slot.segment.offset < 200:
            slot.roll()
            slot.write(b"between")
            recycle(slot)
            number += 1
        write_compressed(slot, *events, b"%0600d" % n)
        assert read_events(data, Position(slot.segment.id.number))[-1] == b"%0600d" % n
    assert number >= 3
    assert copies(data) == []


def test_segments_are_recycled_many_times(data: DataDir, slot: Slot) -> None:
    reader = SlotReader(data, 0, Position())
    follower = LogEnd(data, 0)
    written: list[bytes] = []
    found: list[bytes] = []
    inodes: set[int] = set()
    for n in range(600):
        event = b"%0*d" % (1 + n * 7 % 300, n)
        if slot.segment.offset + len(slot.image(event)) > SEGMENT_BYTES:
            slot.roll()
        inodes.add(os.fstat(slot.segment.fd).st_ino)
        slot.write(event)
        written.append(event)
        if n % 3 == 0:
            found += events_of(drain(reader))
            assert written == found
            remove_read_segments(data, 0, [reader.position.segment], recycled_bytes=SEGMENT_BYTES)
        assert (slot.position, slot.next_number) == follower.refresh()
    assert len(inodes) < slot.segment.id.number // 2
    assert (0, 0, 0) == (reader.damaged_bytes, reader.missing_events, reader.repeated_events)
    assert copies(data) == []
    reader.close()


# --- format 1 -----------------------------------------------------------------------------------


def make_old(data: DataDir) -> list[bytes]:
    """Turn a new data directory into one of format 1 with two segments; return its events."""
    from tests.spools import seal

    meta = data.path / "META"
    meta.write_text(meta.read_text().replace('"format":2', '"format":1'))
    folder = data.slot_dir(0)
    folder.mkdir()
    events: list[bytes] = []
    for number in (1, 2):
        identity = SegmentId(data.node, 0, number, 1)
        image = pack_segment_header(identity, 0)
        for _ in range(3):
            events.append(b"%d" % len(events))
            image += seal([(0, events[-1])], [b"web"], identity, len(image), 0, len(events) - 1)
        (folder / segment_name(number)).write_bytes(image + bytes(4096 - len(image)))
    return events


def test_data_of_format_1_is_read_and_continued(tmp_path: Path) -> None:
    events = make_old(DataDir.open(tmp_path / "data"))
    data = DataDir.find(tmp_path / "data")
    assert events == read_events(data)
    assert '"format":1' in (data.path / "META").read_text()  # reading does not change it
    slot = Slot(data)
    assert '"format":2' in (data.path / "META").read_text()
    assert data.node == DataDir.find(data.path).node
    assert (3, 6) == (slot.segment.id.number, slot.next_number)
    slot.write(b"new")
    assert [*events, b"new"] == read_events(data)
    assert (slot.position, 7) == LogEnd(data, 0).refresh()
    recycle(slot)
    assert ([3], []) == (data.segments(0), data.spares(0))
    slot.close()


def test_damage_at_the_end_of_a_segment_of_format_1_is_quarantined_completely(
    tmp_path: Path,
) -> None:
    events = make_old(data := DataDir.open(tmp_path / "data"))
    path = data.slot_dir(0) / segment_name(1)
    image = path.read_bytes().rstrip(b"\0")
    path.write_bytes(image + b"\n" * (-len(image) % 8) + b"\xff" * 100)
    reader = SlotReader(data, 0, Position())
    found = events_of(drain(reader))
    reader.close()
    assert events[3:] == found[-3:]
    assert sum(copy.stat().st_size for copy in copies(data)) >= 100


def test_an_unknown_format_is_an_error(data: DataDir) -> None:
    meta = data.path / "META"
    meta.write_text(meta.read_text().replace('"format":2', '"format":3'))
    expected = "unknown format 3, this program reads 1 to 2; use the version of pixelfast that"
    with pytest.raises(SpoolError, match=expected):
        DataDir.find(data.path)


def test_a_writer_that_cannot_change_the_format_does_not_start(
    data: DataDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(data)
    old = DataDir.find(data.path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = open_fds()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        SlotFiles(old, 0, SEGMENT_BYTES)
    assert before == open_fds()
    assert '"format":1' in (data.path / "META").read_text()
