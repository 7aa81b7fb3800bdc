"""Newline-delimited JSON in files.

The files are `<folder>/<UTC time>-<number>.ndjson`; with `[cluster]`, `-<machine>` follows the
number, so that the files of several machines can be collected in one folder. They contain whole
lines, which are synced before the cursor moves. Numbers increase, so names sort in the order of
writing. A file is closed at its maximum size or age, and the next batch creates the next file.
Another thread compresses and deletes closed files (`deliver/archive`). A batch waits while the disk
space for it is missing.

The name and size of the file are stored with the cursors after each batch. After a crash, bytes
beyond that size belong to a batch whose cursor did not move. The next batch is compared with them,
and events that are already in the file are not written twice.

A lock on `.lock` in the folder excludes all other writers, including those of other data
directories. Only the owner can open that file, while any process that may read the folder could
lock the folder itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from errno import EDQUOT, ENOSPC
from pathlib import Path

import structlog

from pixelfast.deliver.archive.keeper import ArchiveKeeper
from pixelfast.deliver.archive.names import LOCK, archive_files, file_name, is_own
from pixelfast.deliver.archive.quota import DiskQuota
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.bodies.lines import escape_line_ends
from pixelfast.deliver.outcomes import Accepted, Outcome, Retry, Waiting
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.threads import OwnThread
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.errors import DestinationError, SpoolLocked
from pixelfast.spool.datadir import lock_file, sync_directory
from pixelfast.spool.modes import PRIVATE_FILE, PRIVATE_FOLDER, correct_modes

__all__ = ["FileSender"]

_log = structlog.get_logger("deliver")
_MAX_COMPARED_BYTES = 64 * 2**20
_TEND_S = 10.0  # between two rounds of maintenance, unless one is due earlier
_TEND_PAUSE_S = 0.1
_LOOK_SHARE = 20  # listing many files uses at most a twentieth of a core


class FileSender(Sender):
    """Append events to one file at a time.

    Files have the permissions `mode`, whatever the umask. `machine` is a part of their names,
    unless it is empty. `keeper` maintains the finished files, and `quota` limits the disk space.
    """

    # Small, so that an event is in its file well within a second of its response.
    limits = BatchLimits(max_events=1_000_000, max_bytes=4 * 2**20, max_age_s=0.2)
    may_send_ahead = False  # it fails because of its disk, never because of an event

    def __init__(
        self,
        folder: str | Path,
        rotate_bytes: int,
        rotate_s: float,
        *,
        mode: int = PRIVATE_FILE,
        machine: str = "",
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        keeper: ArchiveKeeper | None = None,
        quota: DiskQuota | None = None,
    ) -> None:
        self._clock = clock
        self.folder = Path(folder)
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._mode = mode
        self._machine = machine
        self._keeper = keeper
        self._quota = quota
        self._limit_bytes = 0  # the last limit from `quota`
        self._tending: asyncio.Task[None] | None = None
        self._tend_now = asyncio.Event()
        self._lock_fd = -1
        self._fd = -1
        self._name = ""
        self._size = 0
        self._number = 0
        self._opened_s = 0.0
        self._written_ahead = b""  # at the end of the file; its cursor did not move

    async def open(self, memory: dict[str, object]) -> None:
        await self.in_thread(self._restore, memory)
        if self._keeper is not None:
            self._keeper.must_stop = False
            self._tending = asyncio.create_task(self._tend(self._keeper))

    async def send(self, batch: Batch) -> Outcome:
        before = self._number
        try:
            outcome: Outcome = await self.in_thread(self._append, escape_line_ends(batch.ndjson()))
        except OSError as error:
            reason = f"{self.folder}: {error.strerror}"
            is_full = error.errno in (ENOSPC, EDQUOT)
            outcome = Waiting(reason) if is_full else Retry(reason)
        is_over = self._keeper is not None and self._keeper.is_over
        if is_over or self._number != before or not isinstance(outcome, Accepted):
            self._tend_now.set()
        return outcome

    async def close(self) -> None:
        if self._keeper is not None and self._tending is not None:
            self._keeper.must_stop = True
            self._tending.cancel()
            await asyncio.wait({self._tending})
            self._tending = None
        self._leave()
        self._leave_folder()

    def figures(self) -> dict[str, float]:
        if self._keeper is None:
            return {}
        figures: dict[str, float] = {
            "archive_bytes": self._keeper.used_bytes,
            "archive_files": self._keeper.files,
            "archive_deleted_files": self._keeper.deleted_files,
            "archive_deleted_bytes": self._keeper.deleted_bytes,
        }
        if self._limit_bytes:
            figures["archive_limit_bytes"] = self._limit_bytes
        return figures

    async def _tend(self, keeper: ArchiveKeeper) -> None:
        """Maintain the finished files in a thread that no batch waits for."""
        thread = OwnThread("archive")
        try:
            while True:
                self._tend_now.clear()
                has_more = await thread.run(keeper.tend, self._number)
                await thread.run(self._measure_limit, keeper)
                await asyncio.sleep(max(_TEND_PAUSE_S, _LOOK_SHARE * keeper.look_s))
                if not has_more:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TEND_S):
                            await self._tend_now.wait()
        finally:
            await thread.close()

    # --- in the thread -----------------------------------------------------------------------

    def _restore(self, memory: dict[str, object]) -> None:
        """Continue where the last run stopped, in the last file that it wrote."""
        self._leave()
        self._written_ahead = b""
        self._number = 0
        self._own_folder()
        if self._keeper is not None:
            self._keeper.clean_up()
            self._keeper.measure()
        newest = max(archive_files(self.folder), default=None)
        if newest is None:
            return
        self._number = newest.number
        if newest.is_compressed:
            return
        name = newest.name
        is_recorded = memory.get("file") == name and isinstance(memory.get("size"), int)
        recorded = memory["size"] if is_recorded else 0
        assert isinstance(recorded, int)
        fd = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = _cut_torn_tail(fd, name)
            ahead = b""
            if recorded < size <= recorded + _MAX_COMPARED_BYTES:
                ahead = os.pread(fd, size - recorded, recorded)
            if is_recorded and b"\0" in ahead:
                # A power failure left a hole. Events after the recorded size are written again.
                _log.warning("archive_hole_removed", file=name, bytes=size - recorded)
                os.ftruncate(fd, recorded)
                size, ahead = recorded, b""
            os.fdatasync(fd)  # a killed process may have written data without a sync
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._name, self._size, self._written_ahead = fd, name, size, ahead
        age_s = max(0.0, self._clock.wall_s() - newest.began_s)
        self._opened_s = self._clock.monotonic_s() - age_s

    def _own_folder(self) -> None:
        """Create the folder if it does not exist, and lock it against other writers."""
        self._leave_folder()
        missing = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            made.chmod(_folder_mode(self._mode, PRIVATE_FOLDER))
            sync_directory(made.parent)
        try:
            self._lock_fd = lock_file(self.folder / LOCK)
        except SpoolLocked as error:
            message = f"another destination writes to {self.folder}: {error}"
            raise DestinationError(message) from None
        # In a folder with other files, only the permissions of the archive's files are changed.
        with os.scandir(self.folder) as entries:
            is_ours = all(is_own(entry.name) for entry in entries)
        before = stat.S_IMODE(self.folder.stat().st_mode)
        correct_modes(
            self.folder,
            lambda name: name != LOCK and is_own(name),
            file_mode=self._mode,
            root_mode=_folder_mode(self._mode, before) if is_ours else None,
        )

    def _measure_limit(self, keeper: ArchiveKeeper) -> None:
        if self._quota is not None:
            with contextlib.suppress(OSError):  # the next batch creates a missing folder again
                limit = self._quota.limit_bytes(self.folder, keeper.used_bytes)
                self._limit_bytes = min(limit, keeper.keep_bytes or limit)

    def _append(self, data: bytes) -> Outcome:
        self._detect_changes()
        if self._written_ahead:
            data = self._without_written(data)
        if data:
            if reason := self._shortage(len(data)):
                return Waiting(reason)
            self._rotate_when_due()
            self._write(data)
        size = self._size - len(self._written_ahead)
        return Accepted({"file": self._name, "size": size})

    def _shortage(self, more_bytes: int) -> str:
        if self._quota is None or self._keeper is None or not self.folder.exists():
            return ""
        return self._quota.shortage(self.folder, self._keeper.used_bytes, more_bytes)

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:] if done else data, self._size + done)
        except OSError:
            os.ftruncate(self._fd, self._size)  # whole lines only
            raise
        try:
            os.fdatasync(self._fd)
        except OSError:
            # The file is not synced again, because the kernel has marked the failed pages as clean.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self._leave()
            raise
        self._size += len(data)
        if self._keeper is not None:
            self._keeper.grown_bytes += len(data)

    def _detect_changes(self) -> None:
        """Detect that the file was moved, deleted or truncated, and continue accordingly."""
        if self._fd < 0:
            return
        there = os.fstat(self._fd)
        try:
            is_same = os.path.samestat(there, (self.folder / self._name).stat())
        except FileNotFoundError:
            is_same = False
        if not is_same:
            self._written_ahead = b""
            self._leave()
        elif there.st_size < self._size:
            self._written_ahead = b""
            self._size = there.st_size

    def _without_written(self, data: bytes) -> bytes:
        """Return the data without the part that is already at the end of the file."""
        ahead = self._written_ahead
        if data.startswith(ahead):
            self._written_ahead = b""
            return data[len(ahead) :]
        if ahead.startswith(data):
            self._written_ahead = ahead[len(data) :]
            return b""
        self._written_ahead = b""  # the batch was cut differently: repeated, not lost
        return data

    def _rotate_when_due(self) -> None:
        if self._fd >= 0:
            age_s = self._clock.monotonic_s() - self._opened_s
            if self._size < self._rotate_bytes and age_s < self._rotate_s:
                return
            self._leave()
        if not self.folder.exists():
            self._own_folder()
        self._number += 1
        name = file_name(self._clock.wall_s(), self._number, self._machine)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self.folder / name, flags, PRIVATE_FILE)
        try:
            if self._mode != PRIVATE_FILE:
                os.fchmod(fd, self._mode)
            sync_directory(self.folder)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
            raise
        self._fd, self._name, self._size = fd, name, 0
        self._opened_s = self._clock.monotonic_s()

    def _leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _leave_folder(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _folder_mode(mode: int, before: int) -> int:
    """Return the mode of a folder whose files have `mode`.

    Users who may read the files may list the folder and keep their permissions of `before`. All
    others lose theirs.

    >>> f"{_folder_mode(0o640, 0o2775):o}", f"{_folder_mode(0o600, 0o755):o}"
    ('2770', '700')
    """
    kept = sum(of_class for of_class in (0o070, 0o007) if mode & of_class)
    return (before & (0o7000 | kept)) | PRIVATE_FOLDER | mode | (mode & 0o444) >> 2


def _cut_torn_tail(fd: int, name: str) -> int:
    """Truncate an incomplete line at the end of the file; return the remaining size."""
    size = os.fstat(fd).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        line_feed = os.pread(fd, end - start, start).rfind(b"\n")
        if line_feed >= 0:
            end = start + line_feed + 1
            break
        end = start
    if end < size:
        _log.warning("archive_line_truncated", file=name, bytes=size - end)
        os.ftruncate(fd, end)
        os.fsync(fd)
    return end
