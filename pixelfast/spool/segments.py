"""The segment files of one slot, for their writer: creating, recycling and closing them."""

from __future__ import annotations

import contextlib
import os
import time
from errno import EIO
from pathlib import Path

from pixelfast.errors import SpoolCorrupt, SpoolLocked
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
    MovedSegment,
    SegmentId,
    is_recyclable_size,
    pack_segment_header,
    parse_segment_header,
    segment_name,
    spare_name,
)
from pixelfast.spool.frames import FRAME_END_BYTES
from pixelfast.spool.highwater import read_high_water
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = ["MAX_SPARES", "SegmentFile", "SlotFiles"]

MAX_SPARES = 2  # that a slot keeps


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
        """Take the slot's lock, and set the format of the data directory.

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
            segments = data.segments(slot)
            self._number = max([record.segment, *segments, *data.spares(slot)])
            self._unusable: set[Path] = set()  # spares that failed
            data.upgrade()
            self._spare_empty_segments(segments)
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
        """Create the next segment from a spare, or as a new file.

        Its header and its name are on the disk.

        The blocks of a spare were written before, so that syncing a commit writes only data: no
        extents, no journal. A new file is preallocated: fdatasync has no file size to update (2 to
        3 times as fast), and a full disk is noticed here instead of in the middle of a commit.

        Raises:
            OSError: the disk is full or failed; nothing is left behind.
        """
        self._number += 1  # also if it fails: a number is never used twice
        identity = self._place(self._number)
        path = self._dir / segment_name(self._number)
        spare = self._usable_spare()
        if spare is None:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        else:
            self._unusable.add(spare)  # until it is a segment
            sync_directory(self._dir)  # after a power cut its old name must not have a new header
            fd = os.open(spare, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, self.segment_bytes)
            header = pack_segment_header(identity, time.time_ns() // 1_000_000)
            header += bytes(FRAME_END_BYTES)
            if os.pwrite(fd, header, 0) < len(header):
                raise OSError(EIO, "a segment header was written in part")
            os.fsync(fd)
            if spare is not None:
                os.rename(spare, path)  # noqa: PTH104 - as all calls here that change the disk
            sync_directory(self._dir)
        except BaseException:
            os.close(fd)
            for each in (spare or path, path):
                with contextlib.suppress(OSError):
                    each.unlink()
            raise
        self._remove_needless_spares()
        return SegmentFile(identity, path, fd)

    def _usable_spare(self) -> Path | None:
        for number in self._data.spares(self.slot):
            path = self._dir / spare_name(number)
            if path not in self._unusable and self._is_usable(path):
                return path
            self._unusable.add(path)
        return None

    def _is_usable(self, path: Path) -> bool:
        """Return whether a spare has the length of a segment, and a header of this slot."""
        try:
            with path.open("rb") as file:
                size, header = os.fstat(file.fileno()).st_size, file.read(SEGMENT_HEADER_BYTES)
            found = parse_segment_header(header, self._place(0), path.name)
        except MovedSegment as error:
            found = error.found  # the segment that it was, or was to become
        except (OSError, SpoolCorrupt):
            return False
        is_long_enough = size == self.segment_bytes or is_recyclable_size(size, self.segment_bytes)
        return is_long_enough and found == self._place(found.number)

    def _place(self, number: int) -> SegmentId:
        return SegmentId(self._data.node, self.slot, number)

    def _remove_needless_spares(self) -> None:
        """Remove spares beyond the maximum, and those that cannot be used.

        Call it only after a segment was created: until then, a spare may have the highest number.
        """
        spares = [self._dir / spare_name(number) for number in self._data.spares(self.slot)]
        usable = [path for path in spares if path not in self._unusable]
        for path in {*spares, *usable[MAX_SPARES:]} - {*usable[:MAX_SPARES]}:
            with contextlib.suppress(OSError):
                path.unlink()

    def _spare_empty_segments(self, segments: list[int]) -> None:
        """Make spares of the segments that earlier writers created in advance and did not use.

        Each crash leaves one. In a slot without any event the first one stays, because readers may
        have it open.
        """
        written = self._data.newest_written(self.slot)
        empty = [number for number in segments if number > written]
        for number in empty if written else empty[1:]:
            path = self._dir / segment_name(number)
            if self._is_usable(path):
                os.rename(path, self._dir / spare_name(number))  # noqa: PTH104

    def retire(self, segment: SegmentFile, *, is_sound: bool) -> None:
        """Close a segment. The disk space that it did not need is freed.

        A segment of which a write or a sync failed is not synced: the kernel has marked its dirty
        pages clean, so another sync would succeed and prove nothing. It never gets a length at
        which it would be recycled.

        Raises:
            OSError: the disk failed.
        """
        is_nearly_full = is_recyclable_size(segment.offset, self.segment_bytes)
        try:
            if is_sound:
                os.ftruncate(segment.fd, segment.offset)
                os.fsync(segment.fd)
            elif not is_nearly_full:
                os.ftruncate(segment.fd, segment.offset)
        except OSError:
            if is_sound and is_nearly_full:
                with contextlib.suppress(OSError):
                    os.ftruncate(segment.fd, self.segment_bytes)
            raise
        finally:
            os.close(segment.fd)

    def measure(self, current: SegmentFile | None) -> tuple[int, int]:
        """Return `used_bytes`, and how many bytes of the disk are free."""
        return self.used_bytes(current), free_bytes(self._dir)

    def used_bytes(self, current: SegmentFile | None) -> int:
        """Return how many bytes the slot uses on the disk, from the sizes of its files.

        The current segment counts with what is in it. All other files, including the segment made
        ahead and the spares, count in full.
        """
        paths = [self._dir / spare_name(number) for number in self._data.spares(self.slot)]
        paths += [self._dir / segment_name(number) for number in self._data.segments(self.slot)]
        total = 0
        for path in paths:
            if current is not None and path == current.path:
                total += current.offset
            else:
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size
        return total

    def close(self) -> None:
        """Release the slot's lock."""
        os.close(self._lock_fd)
