"""The file destination on a disk that is full or fails, or whose files are deleted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixelfast.deliver.destinations.file import FileSender
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry
from tests.deliver.running import run
from tests.deliver.spools import batch_of, event, files_in, ndjson, numbers_in
from tests.deliver.test_file_crashes import NEVER, opened, send, watched_syncs


async def try_to_send(sender: FileSender, *numbers: int) -> Outcome:
    return await sender.send(batch_of([event(n) for n in numbers]))


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from pixelfast.deliver.destinations.file import FileSender
from pixelfast.deliver.outcomes import Accepted, Retry
from tests.deliver.spools import batch_of, event, ndjson

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.RLIM_INFINITY

def limit_file_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited))

async def main():
    sender = FileSender(folder, 10**12, 10**12)
    await sender.open({})
    first = batch_of([event(n) for n in range(3)])
    second = batch_of([event(n) for n in range(3, 9)])
    assert isinstance(await sender.send(first), Accepted)
    limit_file_size(first.size_bytes + second.size_bytes // 2)
    for _ in range(3):
        outcome = await sender.send(second)
        assert isinstance(outcome, Retry), outcome
        assert "File too large" in outcome.reason, outcome
        content = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
        assert first.ndjson() == content, content
    limit_file_size(unlimited)
    assert isinstance(await sender.send(second), Accepted)
    await sender.close()

asyncio.run(main())
"""


def test_a_full_disk_leaves_whole_lines_and_writing_continues_when_there_is_space(
    tmp_path: Path,
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        check=False,
        capture_output=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    assert 0 == child.returncode, child.stderr.decode()
    assert list(range(9)) == numbers_in(tmp_path)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))

    async def main() -> None:
        sender = await opened(tmp_path, {})
        await send(sender, *range(10))
        await sender.close()

    run(main())
    assert list(range(10)) == numbers_in(tmp_path)


def test_a_file_whose_sync_failed_is_not_synced_or_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has marked the dirty pages as clean, so another sync would be meaningless."""

    async def main() -> None:
        sender = await opened(tmp_path, {})
        await send(sender, 1)
        (first,) = files_in(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _fail)
            outcome = await try_to_send(sender, 2, 3)
        assert isinstance(outcome, Retry)
        assert "Input/output error" in outcome.reason
        assert ndjson([event(1)]) == first.read_bytes()
        with watched_syncs() as syncs:
            memory = await send(sender, 2, 3)
        await sender.close()
        assert str(first) not in syncs.sizes
        assert memory["file"] != first.name

    run(main())
    assert [1, 2, 3] == numbers_in(tmp_path)


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_whole_batch_is_synced_before_it_is_accepted(tmp_path: Path) -> None:
    async def main() -> None:
        with watched_syncs() as syncs:
            sender = await opened(tmp_path, {})
            for count in range(1, 4):
                await send(sender, *range(10 * count, 11 * count))
                (path,) = files_in(tmp_path)
                assert {str(path): path.stat().st_size} == syncs.sizes
            await sender.close()

    run(main())


def test_new_folders_and_files_are_synced_before_a_batch_is_accepted(tmp_path: Path) -> None:
    """A power failure loses a new name, and all below it, if the directory was not synced."""
    folder = tmp_path / "events" / "archive"

    async def main() -> None:
        with watched_syncs() as syncs:
            sender = await opened(folder, {})
            await send(sender, 1)
            await sender.close()
        assert {str(folder), str(folder.parent), str(tmp_path)} == set(syncs.directories)

    run(main())


def test_a_new_file_does_not_count_before_its_directory_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync of the directory failed once, so the next attempt must repeat it."""

    async def main() -> None:
        sender = await opened(tmp_path, {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _fail)
            assert isinstance(await try_to_send(sender, 1), Retry)
        with watched_syncs() as syncs:
            await send(sender, 1)
        await sender.close()
        assert str(tmp_path) in syncs.directories

    run(main())
    assert [1] == numbers_in(tmp_path)


async def send_until_accepted(sender: FileSender, *numbers: int) -> None:
    for _ in range(3):
        if isinstance(await try_to_send(sender, *numbers), Accepted):
            return
    raise AssertionError("not accepted in three attempts")


def test_writing_continues_if_the_folder_is_deleted_and_a_new_file_is_due(tmp_path: Path) -> None:
    folder = tmp_path / "events"

    async def main() -> None:
        sender = await opened(folder, {}, rotate_bytes=1)
        await send(sender, 1)
        shutil.rmtree(folder)
        await send_until_accepted(sender, 2)
        await sender.close()

    run(main())
    assert [2] == numbers_in(folder)


def test_events_accepted_after_the_folder_was_deleted_can_be_found(tmp_path: Path) -> None:
    folder = tmp_path / "events"

    async def main() -> None:
        sender = await opened(folder, {})
        await send(sender, 1)
        shutil.rmtree(folder)
        await send_until_accepted(sender, 2)
        await sender.close()

    run(main())
    assert [2] == numbers_in(folder)


def test_events_accepted_after_the_file_was_deleted_can_be_found(tmp_path: Path) -> None:
    async def main() -> None:
        sender = await opened(tmp_path, {})
        await send(sender, 1)
        files_in(tmp_path)[0].unlink()
        await send_until_accepted(sender, 2)
        await sender.close()

    run(main())
    assert [2] == numbers_in(tmp_path)


def test_a_file_that_was_truncated_by_another_process_gets_no_hole(tmp_path: Path) -> None:
    """By `> file.ndjson`, or by a log rotation that copies and truncates."""

    async def main() -> None:
        sender = await opened(tmp_path, {})
        await send(sender, 1)
        os.truncate(files_in(tmp_path)[0], 0)
        await send_until_accepted(sender, 2)
        await sender.close()

    run(main())
    assert [2] == numbers_in(tmp_path)


def test_reopening_continues_with_the_existing_files(tmp_path: Path) -> None:
    """A failed runner opens its sender again, which must forget its earlier state."""

    async def main() -> None:
        sender = await opened(tmp_path, {})
        memory = await send(sender, 0)
        await send(sender, 1)
        await sender.close()
        await sender.open(memory)  # event 1 is in the file, but not recorded
        await sender.close()
        for path in files_in(tmp_path):
            path.unlink()
        await sender.open(memory)
        await send(sender, 1)
        await sender.close()

    run(main())
    assert [1] == numbers_in(tmp_path)


def test_an_unusable_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file stands here")

    async def main() -> None:
        sender = FileSender(tmp_path / "events", NEVER, NEVER)
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            await sender.open({})
        await sender.close()

    run(main())
