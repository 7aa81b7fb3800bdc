"""The segment files of one slot, for their writer: creating and closing them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from pixelfast.errors import SpoolLocked
from pixelfast.spool.datadir import (
    DataDir,
    free_bytes,
    lock_file,
    make_directory,
    sync_directory,
)
from pixelfast.spool.end import newest_frame
from pixelfast.spool.format import (
    SEGMENT_HEADER_BYTES,
    SegmentId,
    pack_segment_header,
    segment_name,
)
from pixelfast.spool.highwater import read_high_water
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = ["SegmentFile", "SlotFiles"]


class SegmentFile:
    """An open segment: its identity, its descriptor, and where the next frame goes."""

    __slots__ = ("fd", "id", "offset", "path")

    def __init__(self, identity: SegmentId, path: Path, fd: int) -> None:
        self.id = identity
        self.path = path
        self.fd = fd
        self.offset = SEGMENT_HEADER_BYTES


class SlotFiles:
    """The directory of one slot, owned for writing.

    `next_number` is the number that the next event gets: the one behind the newest frame.

    Every method may wait for the disk; the writer calls them in another thread.
    """

    def __init__(self, data: DataDir, slot: int, segment_bytes: int) -> None:
        """Take the slot's lock.

        Raises:
            SpoolLocked: another collector writes into this slot.
        """
        self.slot = slot
        self.segment_bytes = segment_bytes
        self._data = data
        self._dir = data.slot_dir(slot)
        self._lock_fd = self._lock()
        try:
            # Continue from the existing segments, and from those of the slot before it was removed.
            record = read_high_water(data, slot)
            self._number = max([record.segment, *data.segments(slot)])
            self._last_before = self._number
            newest = newest_frame(data, slot)
            self.next_number = max(record.next_number, newest.next_number if newest else 0)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> int:
        while True:
            make_directory(self._dir)
            try:
                return lock_file(self._dir / "writer.lock")
            except SpoolLocked as error:
                message = f"another collector writes into slot {self.slot}: {error}"
                raise SpoolLocked(message) from None
            except FileNotFoundError:
                continue  # the slot was read to its end and removed between the two steps

    def create(self) -> SegmentFile:
        """Create the next segment: preallocated, with its header and its name on the disk.

        With preallocation, fdatasync has no file size to update (2 to 3 times as fast), and a full
        disk is noticed here instead of in the middle of a commit.

        Raises:
            OSError: the disk is full or failed; nothing is left behind.
        """
        self._number += 1  # also if it fails: a number is never used twice
        number = self._number
        identity = SegmentId(self._data.node, self.slot, number)
        path = self._dir / segment_name(number)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(path, flags, PRIVATE_FILE)
        try:
            os.posix_fallocate(fd, 0, self.segment_bytes)
            header = pack_segment_header(identity, time.time_ns() // 1_000_000)
            os.pwrite(fd, header, 0)
            os.fsync(fd)
            sync_directory(self._dir)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return SegmentFile(identity, path, fd)

    def retire(self, segment: SegmentFile, *, is_sound: bool) -> None:
        """Close a segment. The disk space that a sound one did not need is freed.

        A segment that failed a write or a sync is only closed: the kernel has marked its dirty
        pages clean, so another sync of it would succeed and mean nothing.
        """
        try:
            if is_sound:
                os.ftruncate(segment.fd, segment.offset)
                os.fsync(segment.fd)
        finally:
            os.close(segment.fd)

    def measure(self, current: SegmentFile | None) -> tuple[int, int]:
        """Return `used_bytes`, and how many bytes of the disk are free."""
        return self.used_bytes(current), free_bytes(self._dir)

    def used_bytes(self, current: SegmentFile | None) -> int:
        """Return how many bytes the slot's events use on the disk, from the sizes of its files.

        The current segment counts with what is in it, and the one made ahead does not count.
        """
        total = current.offset if current else 0
        left_behind = current.id.number - 1 if current else self._last_before
        for number in self._data.segments(self.slot):
            if number <= left_behind:
                with contextlib.suppress(FileNotFoundError):
                    total += (self._dir / segment_name(number)).stat().st_size
        return total

    def close(self) -> None:
        """Release the slot's lock."""
        os.close(self._lock_fd)
