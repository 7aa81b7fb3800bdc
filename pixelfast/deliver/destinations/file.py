"""Newline-delimited JSON in files.

`<folder>/<UTC time>-<number>.ndjson`, whole lines only, synced before the cursor moves. The number
counts up, so names sort in the order of writing; a file is closed once it has reached its size or
its age, and the next batch opens the next one.

With every batch the name and size of its file are remembered together with the cursors. So after
a crash it is known which bytes at the end are of a batch whose cursor did not move: the first batch
is compared with them, and what stands there already is not written twice.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import re
import time
from pathlib import Path

import structlog

from pixelfast.deliver.batches import Batch, Limits
from pixelfast.deliver.destinations.base import Sender
from pixelfast.deliver.retry import Accepted, Outcome, Retry
from pixelfast.spool.datadir import sync_directory

__all__ = ["FileSender"]

_log = structlog.get_logger("deliver")
_NAME = re.compile(r"\d{8}T\d{6}Z-(\d{8,})\.ndjson")
_MOST_COMPARED_BYTES = 64 * 2**20


class FileSender(Sender):
    """Appends to one file at a time."""

    # Small, so that an event stands in its file well within a second of its answer.
    limits = Limits(max_events=1_000_000, max_bytes=4 * 2**20, max_age_s=0.2)

    def __init__(self, folder: str | Path, rotate_bytes: int, rotate_s: float) -> None:
        self.folder = Path(folder)
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._fd = -1
        self._name = ""
        self._size = 0
        self._number = 0
        self._opened_s = 0.0
        self._written_ahead = b""  # stands in the file; its cursor did not move

    async def open(self, memory: dict[str, object]) -> None:
        await asyncio.to_thread(self._restore, memory)

    async def send(self, batch: Batch) -> Outcome:
        try:
            return await asyncio.to_thread(self._append, batch.ndjson())
        except OSError as error:
            return Retry(f"{self.folder}: {error.strerror}")

    async def close(self) -> None:
        self._leave()

    def _restore(self, memory: dict[str, object]) -> None:
        """Go on where the last run stopped, in the file that it wrote last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbered = {
            int(match[1]): match[0]
            for entry in self.folder.iterdir()
            if (match := _NAME.fullmatch(entry.name))
        }
        if not numbered:
            return
        self._number = max(numbered)
        name = numbered[self._number]
        recorded = memory.get("size") if memory.get("file") == name else 0
        fd = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = _cut_torn_tail(fd, name)
            start = min(recorded if isinstance(recorded, int) else 0, size)
            if memory and size - start <= _MOST_COMPARED_BYTES:
                self._written_ahead = os.pread(fd, size - start, start)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._name, self._size = fd, name, size
        began = calendar.timegm(time.strptime(name[:16], "%Y%m%dT%H%M%SZ"))
        self._opened_s = time.monotonic() - max(0.0, time.time() - began)

    def _append(self, data: bytes) -> Accepted:
        if self._written_ahead:
            data = self._without_what_stands_there(data)
        if data:
            self._rotate_when_due()
            try:
                done = 0
                while done < len(data):
                    done += os.pwrite(self._fd, data[done:] if done else data, self._size + done)
            except OSError:
                os.ftruncate(self._fd, self._size)  # whole lines only
                raise
            try:
                os.fdatasync(self._fd)
            except OSError:
                # Never sync this file again: what failed to reach the disk counts as clean now.
                os.ftruncate(self._fd, self._size)
                self._leave()
                raise
            self._size += len(data)
        return Accepted({"file": self._name, "size": self._size - len(self._written_ahead)})

    def _without_what_stands_there(self, data: bytes) -> bytes:
        ahead = self._written_ahead
        if data.startswith(ahead):
            self._written_ahead = b""
            return data[len(ahead) :]
        if ahead.startswith(data):
            self._written_ahead = ahead[len(data) :]
            return b""
        self._written_ahead = b""  # cut otherwise this time: delivered twice, not lost
        return data

    def _rotate_when_due(self) -> None:
        if self._fd >= 0:
            age_s = time.monotonic() - self._opened_s
            if self._size < self._rotate_bytes and age_s < self._rotate_s:
                return
            self._leave()
        self._number += 1
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._name = f"{started}-{self._number:08d}.ndjson"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self.folder / self._name, flags, 0o644)
        self._size = 0
        self._opened_s = time.monotonic()
        sync_directory(self.folder)

    def _leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _cut_torn_tail(fd: int, name: str) -> int:
    """Cut what a crash left of a line; the size without it."""
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
        _log.warning("torn_line_cut", file=name, bytes=size - end)
        os.ftruncate(fd, end)
        os.fsync(fd)
    return end
