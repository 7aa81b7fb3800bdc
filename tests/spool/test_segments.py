"""A slot's files: created completely or not at all, with unique numbers, and closed cleanly."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from pixelfast.errors import SpoolLocked
from pixelfast.spool import DataDir, SlotFiles
from pixelfast.spool.format import FORMAT_VERSION, SEGMENT_HEADER_BYTES, parse_segment_header
from tests.leaks import open_fds
from tests.spool.tools import run_python
from tests.spools import SEGMENT_BYTES

IMPOSSIBLE_BYTES = 2**62


@pytest.fixture
def files(data: DataDir) -> Iterator[SlotFiles]:
    files = SlotFiles(data, 3, SEGMENT_BYTES)
    yield files
    files.close()


def make_and_leave(files: SlotFiles, length: int, *, is_sound: bool = True) -> None:
    """Create and close a segment with `length` bytes of frames."""
    segment = files.create()
    os.pwrite(segment.fd, b"x" * length, segment.offset)
    segment.offset += length
    files.retire(segment, is_sound=is_sound)


def test_a_new_segment_has_its_header_and_all_its_disk_space(
    data: DataDir, files: SlotFiles
) -> None:
    segment = files.create()
    image = segment.path.read_bytes()
    assert (data.node, 3, 1, FORMAT_VERSION) == segment.id
    assert segment.id == parse_segment_header(image, segment.id, "")
    assert bytes(SEGMENT_BYTES - SEGMENT_HEADER_BYTES) == image[SEGMENT_HEADER_BYTES:]
    assert os.fstat(segment.fd).st_blocks * 512 >= SEGMENT_BYTES
    assert segment.offset == SEGMENT_HEADER_BYTES
    files.retire(segment, is_sound=True)


def test_segment_numbers_increase(data: DataDir, files: SlotFiles) -> None:
    for _ in range(3):
        make_and_leave(files, 8)
    assert [1, 2, 3] == data.segments(3)


def test_a_number_is_never_used_again(data: DataDir) -> None:
    for expected in ([1, 2], [2, 3, 4], [4, 5, 6]):
        files = SlotFiles(data, 0, SEGMENT_BYTES)
        make_and_leave(files, 8)
        make_and_leave(files, 8)
        files.close()
        assert expected == data.segments(0)
        for number in data.segments(0)[:-1]:  # the newest is never removed
            (data.slot_dir(0) / f"{number:016x}.seg").unlink()


def test_a_number_that_failed_is_not_used_again(data: DataDir, files: SlotFiles) -> None:
    files.segment_bytes = IMPOSSIBLE_BYTES
    with pytest.raises(OSError, match=r"File too large|No space"):
        files.create()
    files.segment_bytes = SEGMENT_BYTES
    make_and_leave(files, 8)
    assert [2] == data.segments(3)


def test_a_segment_on_a_full_disk_leaves_no_file(data: DataDir, files: SlotFiles) -> None:
    before = open_fds()
    files.segment_bytes = IMPOSSIBLE_BYTES
    for _ in range(3):
        with pytest.raises(OSError, match=r"File too large|No space"):
            files.create()
    assert [] == data.segments(3)
    assert before == open_fds()


def test_a_file_size_limit_is_reported_before_any_event_is_accepted(data: DataDir) -> None:
    program = """
import resource, sys
from pixelfast.spool import DataDir, SlotFiles
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
data = DataDir.open(sys.argv[1])
try:
    SlotFiles(data, 0, 20_000).create()
except OSError as error:
    print(error.errno, data.segments(0))
"""
    assert run_python(program, data.path) == ["27", "[]"]


@pytest.mark.parametrize("failing", ["pwrite", "fsync", "posix_fallocate"])
def test_a_segment_that_cannot_be_created_leaves_no_file(
    data: DataDir, files: SlotFiles, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "no")

    before = open_fds()
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="no"):
            files.create()
    assert [] == data.segments(3)
    assert before == open_fds()


def test_an_existing_file_is_never_opened_as_new(data: DataDir, files: SlotFiles) -> None:
    path = data.slot_dir(3) / f"{1:016x}.seg"
    path.write_bytes(b"other events")
    with pytest.raises(FileExistsError):
        files.create()
    assert path.read_bytes() == b"other events"
    make_and_leave(files, 8)
    assert [1, 2] == data.segments(3)


def test_a_new_segment_is_synced_and_so_is_its_name(
    files: SlotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        make = files.create()
    assert ["file", "directory"] == synced
    files.retire(make, is_sound=True)


def test_a_sound_segment_ends_after_its_last_frame(data: DataDir, files: SlotFiles) -> None:
    make_and_leave(files, 100)
    path = data.slot_dir(3) / f"{1:016x}.seg"
    assert path.stat().st_size == SEGMENT_HEADER_BYTES + 100
    assert path.read_bytes()[SEGMENT_HEADER_BYTES:] == b"x" * 100


@pytest.mark.parametrize(("is_sound", "syncs"), [(True, 1), (False, 0)])
def test_only_a_sound_segment_is_synced_when_it_is_closed(
    files: SlotFiles, monkeypatch: pytest.MonkeyPatch, is_sound: bool, syncs: int
) -> None:
    # After a failed write or sync, another sync would succeed and mean nothing.
    segment = files.create()
    synced: list[int] = []
    with monkeypatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, synced.append)
        files.retire(segment, is_sound=is_sound)
    assert [segment.fd] * syncs == synced
    assert segment.path.stat().st_size == SEGMENT_HEADER_BYTES


@pytest.mark.parametrize("failing", ["ftruncate", "fsync"])
def test_a_segment_is_closed_even_if_its_last_sync_fails(
    files: SlotFiles, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "no")

    before = open_fds()
    segment = files.create()
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="no"):
            files.retire(segment, is_sound=True)
    assert before == open_fds()


def test_a_slot_has_one_writer(data: DataDir, files: SlotFiles) -> None:
    before = open_fds()
    with pytest.raises(SpoolLocked, match="slot 3"):
        SlotFiles(data, 3, SEGMENT_BYTES)
    assert before == open_fds()
    other = SlotFiles(data, 4, SEGMENT_BYTES)
    other.close()
    make_and_leave(files, 8)


def test_a_released_slot_can_be_locked_again(data: DataDir) -> None:
    for _ in range(3):
        SlotFiles(data, 0, SEGMENT_BYTES).close()
    assert [0] == data.slots()


def test_descriptors_are_not_inherited(files: SlotFiles) -> None:
    segment = files.create()
    assert not os.get_inheritable(segment.fd)
    files.retire(segment, is_sound=True)


def test_used_bytes_include_events_spares_and_the_segment_made_ahead(
    data: DataDir, files: SlotFiles
) -> None:
    assert files.used_bytes(None) == 0
    make_and_leave(files, 100)
    make_and_leave(files, 200)
    current = files.create()
    current.offset += 50
    ahead = files.create()
    (data.slot_dir(3) / f"{9:016x}.spare").write_bytes(bytes(1000))
    assert files.used_bytes(current) == 3 * SEGMENT_HEADER_BYTES + 350 + SEGMENT_BYTES + 1000
    for segment in (current, ahead):
        files.retire(segment, is_sound=True)


def test_used_bytes_count_a_segment_of_a_crash_in_full(files: SlotFiles) -> None:
    os.close(files.create().fd)
    current = files.create()
    assert files.used_bytes(current) == SEGMENT_BYTES + SEGMENT_HEADER_BYTES
    files.retire(current, is_sound=True)


def test_used_bytes_of_the_last_run_count_before_the_first_segment(data: DataDir) -> None:
    # A full spool is full again immediately after a restart.
    files = SlotFiles(data, 0, SEGMENT_BYTES)
    make_and_leave(files, 1000)
    files.close()
    files = SlotFiles(data, 0, SEGMENT_BYTES)
    assert files.used_bytes(None) == SEGMENT_HEADER_BYTES + 1000
    files.close()


def test_used_bytes_ignore_segments_that_are_removed_meanwhile(
    data: DataDir, files: SlotFiles
) -> None:
    class Stale(DataDir):
        def segments(self, slot: int) -> list[int]:
            return [1, 2, *super().segments(slot)]

    current = files.create()
    files.retire(current, is_sound=True)
    others = SlotFiles(Stale(data.path, data.node), 5, SEGMENT_BYTES)
    segment = others.create()
    assert others.used_bytes(segment) == SEGMENT_HEADER_BYTES
    others.retire(segment, is_sound=True)
    others.close()
