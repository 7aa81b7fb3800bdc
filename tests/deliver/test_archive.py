"""Finished files of an archive are compressed, and deleted by age and size."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pixelfast.config import FileDestination
from pixelfast.deliver.archive import compression, names
from pixelfast.deliver.destinations import make_sender
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import Jump
from pixelfast.spool import DataDir
from tests.deliver.archives import Archive, numbers_in
from tests.deliver.clocks import HandClock
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event
from tests.waiting import until

KINDS = [("gzip", ".gz"), ("zstd", ".zst")]
START_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def filled(archive: Archive, count: int, padding: int = 0) -> None:
    """Deliver events 0, 1, 2, …, each into its own file."""

    async def main() -> None:
        await archive.open()
        for number in range(count):
            await archive.send(number, padding=padding)
        await archive.sender.close()

    run(main())


# --- compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "suffix"), KINDS)
def test_finished_files_are_compressed_and_the_newest_is_not(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    archive = Archive(tmp_path, compression=kind, archive_mode="0640")
    filled(archive, 4, padding=10_000)
    before = {path.name: path.stat() for path in tmp_path.glob("*.ndjson")}
    assert not archive.tend()
    assert [f"ndjson{suffix}"] * 3 + ["ndjson"] == archive.suffixes
    assert [0, 1, 2, 3] == numbers_in(tmp_path)
    for path in tmp_path.glob(f"*{suffix}"):
        there, was = path.stat(), before[path.stem]
        assert (was.st_mtime_ns, 0o640) == (there.st_mtime_ns, stat.S_IMODE(there.st_mode))
        assert there.st_size < was.st_size / 20


@pytest.mark.parametrize(("kind", "tool"), [("gzip", "zcat"), ("zstd", "zstdcat")])
def test_the_usual_tools_read_a_compressed_file(tmp_path: Path, kind: str, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    archive = Archive(tmp_path, compression=kind)
    filled(archive, 2)
    expected = min(tmp_path.glob("*.ndjson")).read_bytes()
    archive.tend()
    (path,) = (path for path in tmp_path.iterdir() if path.suffix in {".gz", ".zst"})
    assert expected == subprocess.run([tool, path], capture_output=True, check=True).stdout


def test_a_round_compresses_a_few_files_and_says_that_there_are_more(tmp_path: Path) -> None:
    archive = Archive(tmp_path, compression="gzip")
    filled(archive, 12)
    assert archive.tend()
    assert ["ndjson.gz"] * 8 + ["ndjson"] * 4 == archive.suffixes
    assert not archive.tend()
    assert ["ndjson.gz"] * 11 + ["ndjson"] == archive.suffixes


def test_numbers_continue_after_compressed_files(tmp_path: Path) -> None:
    archive = Archive(tmp_path, compression="gzip")
    filled(archive, 3)
    archive.tend()
    max(tmp_path.glob("*.ndjson")).unlink()
    filled(archive, 1)
    assert ["00000001", "00000002", "00000003"] == [name[17:25] for name in archive.names]
    assert [0, 1, 0] == numbers_in(tmp_path)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    targets = {
        "the first write": (os, "write"),
        "the sync of the copy": (os, "fsync"),
        "the rename": (Path, "rename"),
        "the sync of the folder": (compression, "sync_directory"),
    }
    monkeypatch.setattr(*targets[where], die)
    # A killed process does not clean up.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "where", ["the first write", "the sync of the copy", "the rename", "the sync of the folder"]
)
@pytest.mark.parametrize("later", ["none", "gzip", "zstd"])
def test_a_kill_while_a_file_is_compressed_leaves_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, where: str, later: str
) -> None:
    """The restart may have another `compression`."""
    archive = Archive(tmp_path, compression=kind)
    filled(archive, 3, padding=10_000)
    with monkeypatch.context() as patch:
        kill_at(where, patch)
        with pytest.raises(Killed):
            archive.tend()
    assert 4 == len(archive.names)  # the original, and a part of its copy
    again = Archive(tmp_path, compression=later)
    again.memory, again.newest = archive.memory, archive.newest
    filled(again, 1)
    again.tend()
    assert [0, 1, 2, 0] == numbers_in(tmp_path)
    assert 4 == len(again.names), again.names
    assert not [name for name in again.names if name.startswith(".")]


@pytest.mark.parametrize("torn", [b"", b"torn", None])
@pytest.mark.parametrize("kind", ["none", "gzip"])
def test_a_file_is_kept_if_its_compressed_copy_has_other_contents(
    tmp_path: Path, kind: str, torn: bytes | None
) -> None:
    """Another gzip was killed, and left an incomplete copy."""
    archive = Archive(tmp_path, compression=kind)
    filled(archive, 3)
    first = min(tmp_path.glob("*.ndjson"))
    copy = first.with_name(f"{first.name}.gz")
    subprocess.run(["gzip", "-k", first], check=True)
    copy.write_bytes(copy.read_bytes()[:-3] if torn is None else torn)
    filled(archive, 1)
    with capture_logs() as logs:
        archive.tend()
        archive.tend()
    assert first.exists()
    assert copy.exists()
    told = [each["event"] for each in logs]
    assert (["archive_not_compressed"] if kind == "gzip" else []) == told


def test_a_full_disk_leaves_the_original_and_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, compression="gzip")
    filled(archive, 3)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        archive.tend()
        archive.tend()
    assert ["ndjson"] * 3 == archive.suffixes
    assert [("archive_not_compressed", "No space left on device")] == [
        (each["event"], each["error"]) for each in logs
    ]
    archive.tend()
    assert ["ndjson.gz", "ndjson.gz", "ndjson"] == archive.suffixes


def test_a_stop_does_not_wait_for_a_large_file(tmp_path: Path) -> None:
    archive = Archive(tmp_path, compression="gzip")
    filled(archive, 3)
    archive.keeper.must_stop = True
    archive.tend()
    assert ["ndjson"] * 3 == archive.suffixes


def test_a_file_that_is_removed_while_it_is_compressed_stays_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, aside = tmp_path / "events", tmp_path / "aside"
    archive = Archive(folder, compression="gzip")
    filled(archive, 2)
    write = os.write

    def move(fd: int, data: memoryview) -> int:
        if not aside.exists():
            min(folder.glob("*.ndjson")).rename(aside)
        return write(fd, data)

    monkeypatch.setattr(os, "write", move)
    archive.tend()
    assert [1] == numbers_in(folder)
    assert ["ndjson"] == archive.suffixes


def test_a_file_that_is_changed_while_it_is_compressed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, compression="gzip")
    filled(archive, 2)
    first = min(tmp_path.glob("*.ndjson"))
    write = os.write

    def edit(fd: int, data: memoryview) -> int:
        first.write_bytes(event(7) + b"\n")
        os.utime(first, (START_S, START_S))
        return write(fd, data)

    monkeypatch.setattr(os, "write", edit)
    archive.tend()
    assert [7, 1] == numbers_in(tmp_path)
    assert ["ndjson", "ndjson"] == archive.suffixes


# --- deleting ------------------------------------------------------------------------------------


def test_the_oldest_files_are_deleted_above_keep_bytes(tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep_bytes=40_000, rotate_bytes=1)
    filled(archive, 12, padding=8000)  # 8 KiB on the disk, each
    with capture_logs() as logs:
        archive.tend()
        archive.tend()
    assert [8, 9, 10, 11] == numbers_in(tmp_path)
    keeper = archive.keeper
    assert (4, 8, 8 * 8192) == (keeper.files, keeper.deleted_files, keeper.deleted_bytes)
    assert 4 * 8192 == keeper.used_bytes
    assert [("archive_deleted", 8, 8 * 8192)] == [
        (each["event"], each["files"], each["bytes"]) for each in logs
    ]


def test_no_file_is_deleted_if_compressed_files_fit(tmp_path: Path) -> None:
    """Both settings were changed for an existing archive."""
    archive = Archive(tmp_path, keep_bytes=200_000, compression="gzip")
    filled(archive, 40, padding=8000)
    assert archive.tend()
    while archive.tend():
        pass
    assert list(range(40)) == numbers_in(tmp_path)


def test_files_are_deleted_for_their_size_if_none_can_be_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, keep_bytes=200_000, compression="gzip")
    filled(archive, 40, padding=8000)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    archive.tend()
    assert list(range(16, 40)) == numbers_in(tmp_path)


def test_the_newest_file_is_kept_regardless_of_age_and_size(tmp_path: Path) -> None:
    clock = HandClock(START_S)
    archive = Archive(tmp_path, clock.clock, keep_bytes=4096, keep_for_s=1.0, rotate_bytes=10**9)
    filled(archive, 3, padding=8000)
    clock.advance(10**6)
    archive.tend()
    assert [0, 1, 2] == numbers_in(tmp_path)


def test_files_are_deleted_when_their_newest_event_is_older_than_keep_for_s(tmp_path: Path) -> None:
    clock = HandClock(START_S)
    archive = Archive(tmp_path, clock.clock, keep_for_s=3600.0)
    filled(archive, 4)
    for n, path in enumerate(sorted(tmp_path.glob("*.ndjson"))):
        os.utime(path, (START_S + 600 * n, START_S + 600 * n))
    clock.advance(3600 + 601)
    archive.tend()
    assert [2, 3] == numbers_in(tmp_path)


@pytest.mark.parametrize("jump_s", [-432_000.0, 432_000.0])
def test_a_jump_of_the_wall_clock_deletes_nothing(tmp_path: Path, jump_s: float) -> None:
    clock = HandClock(START_S)
    archive = Archive(tmp_path, clock.clock, keep_for_s=3600.0)
    filled(archive, 3)
    for path in tmp_path.glob("*.ndjson"):
        os.utime(path, (START_S, START_S))
    clock.ahead_s = jump_s
    assert jump_s == clock.clock.look()
    archive.tend()
    assert [0, 1, 2] == numbers_in(tmp_path)
    assert [Jump(START_S, jump_s)] == clock.clock.jumps


def test_files_with_other_names_are_not_deleted(tmp_path: Path) -> None:
    clock = HandClock(START_S)
    others = [
        "notes.txt",
        "20270115T080000Z-9.ndjson",
        "x20270115T080000Z-00000001.ndjson",
        "20270115T080000Z-00000001.ndjson.bz2",
        "20270115T080000Z-00000001.ndjson.gz.part",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"x" * 8000)
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 8000)
    (tmp_path / "20200115T080000Z-00000001.ndjson").symlink_to(outside)
    (tmp_path / "20200115T080000Z-00000002.ndjson").mkdir()
    archive = Archive(tmp_path, clock.clock, keep_bytes=4096, keep_for_s=1.0, compression="gzip")
    filled(archive, 3, padding=8000)
    clock.advance(10**6)
    archive.tend()
    left = {*others, "outside", "20200115T080000Z-00000001.ndjson"}
    left |= {"20200115T080000Z-00000002.ndjson", str(archive.memory["file"])}
    assert left == set(archive.names)


def test_a_file_that_cannot_be_deleted_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(tmp_path, keep_bytes=4096)
    filled(archive, 4, padding=8000)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        archive.tend()
        archive.tend()
    assert ["archive_not_deleted"] == [each["event"] for each in logs]
    assert (0, 4) == (archive.keeper.deleted_files, len(archive.names))


def test_a_missing_folder_is_logged_and_raises_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "events", keep_bytes=4096)
    with capture_logs() as logs:
        assert not archive.tend()
    assert ["archive_not_maintained"] == [each["event"] for each in logs]


def test_listing_more_files_uses_no_more_memory(tmp_path: Path) -> None:
    def peak_bytes() -> int:
        tracemalloc.start()
        try:
            keeper.measure()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    keeper = Archive(tmp_path).keeper
    peaks: list[int] = []
    for last in (2_500, 12_000):
        for number in range(keeper.files + 1, last + 1):
            (tmp_path / names.file_name(START_S, number)).touch()
        peaks.append(peak_bytes())
        assert last == keeper.files
    assert peaks[1] < 1.2 * peaks[0]


def test_a_round_handles_the_oldest_thousand_files_and_the_next_round_the_others(
    tmp_path: Path,
) -> None:
    archive = Archive(tmp_path, keep_bytes=1)
    for number in range(1, 3502):
        name = names.file_name(START_S, number)
        (tmp_path / name).write_bytes(b"{}\n")
    archive.newest = 3501
    rounds = 0
    while archive.tend():
        rounds += 1
    assert 3 == rounds
    assert [names.file_name(START_S, 3501)] == archive.names


# --- beside a sender -----------------------------------------------------------------------------


def test_appended_bytes_count_at_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path, rotate_bytes=10**9)
    filled(archive, 1, padding=8000)
    keeper = archive.keeper
    keeper.measure()
    keeper.grown_bytes += 5000
    assert 8192 + 5000 == keeper.used_bytes
    keeper.measure()
    assert 8192 == keeper.used_bytes


def test_a_sender_maintains_its_files(tmp_path: Path) -> None:
    settings = FileDestination(
        name="archive", compression="gzip", rotate_bytes=1024, keep_bytes=80_000
    )
    data = DataDir.open(tmp_path)
    folder = data.events_dir("archive")

    async def main() -> None:
        sender = make_sender(settings, data)
        await sender.open({})
        for number in range(60):
            await sender.send(batch_of([event(number, 8000)]))
        await until(lambda: 59 == len(list(folder.glob("*.gz"))) + deleted_of(sender))
        await until(lambda: sender.figures()["archive_bytes"] <= 80_000)
        assert 80_000 == sender.figures()["archive_limit_bytes"]
        await sender.close()

    run(main())
    found = numbers_in(folder)
    assert list(range(60 - len(found), 60)) == found
    assert 17 <= len(found) <= 18  # 4 KiB on the disk each, and 8 KiB the newest


def test_a_sender_that_has_just_finished_a_file_can_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maintenance is woken and cancelled in the same turn of the event loop."""
    for pause in ("_TEND_PAUSE_S", "_LOOK_SHARE"):
        monkeypatch.setattr(f"pixelfast.deliver.destinations.file.{pause}", 0.0)

    async def main() -> None:
        sender = make_sender(FileDestination(name="archive", rotate_bytes=1024), data)
        await sender.open({})
        await until(lambda: "archive_limit_bytes" in sender.figures())  # after the first round
        await sender.send(batch_of([event(1, 8000)]))
        async with asyncio.timeout(10.0):
            await sender.close()

    data = DataDir.open(tmp_path)
    run(main())


def deleted_of(sender: Sender) -> float:
    return sender.figures()["archive_deleted_files"]
