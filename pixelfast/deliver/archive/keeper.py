"""Maintaining an archive: finished files are compressed, and the oldest are deleted."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from pathlib import Path

import structlog

from pixelfast.config import FileDestination
from pixelfast.deliver.archive.compression import check_compression, compress_file, settle_twin
from pixelfast.deliver.archive.names import SUFFIXES, ArchiveFile, archive_files, is_own
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.spool.datadir import sync_directory

__all__ = ["ArchiveKeeper"]

_MAX_DELETED = 1000  # files per round, to limit its time and memory
_MAX_COMPRESSED = 8
_LOG_AGAIN_S = 60.0

_log = structlog.get_logger("deliver")


class ArchiveKeeper:
    """Maintain the finished files of one folder. Methods block for the disk unless noted.

    The newest file is never touched: it may be open, and the next file is numbered after it. Whole
    files are deleted, the oldest first, so that a crash leaves a valid archive.

    Attributes:
        keep_bytes: the size above which the oldest files are deleted; 0 for no limit.
        grown_bytes: the total of appended bytes, which the caller counts here.
        files, deleted_files, deleted_bytes: figures for the metrics.
        look_s: how long the last listing of all files took.
        must_stop: ends a round early.
    """

    def __init__(self, folder: Path, settings: FileDestination, clock: DeliveryClock) -> None:
        check_compression(settings.compression)
        self.folder = folder
        self.keep_bytes = settings.keep_bytes
        self.grown_bytes = 0
        self.files = self.deleted_files = self.deleted_bytes = 0
        self.must_stop = False
        self.look_s = 0.0
        self._settings = settings
        self._mode = int(settings.archive_mode, 8)
        self._clock = clock
        self._found_bytes = 0  # at the last listing, minus deleted files
        self._grown_before = 0  # `grown_bytes` at the last listing
        self._told_deleted = 0, 0  # files and bytes at the last message
        self._told_s: dict[str, float] = {}  # when each event was last logged

    # --- methods that do not block -----------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """The disk space of the archive: the last listing, and bytes appended since."""
        return self._found_bytes + self.grown_bytes - self._grown_before

    @property
    def is_over(self) -> bool:
        """Whether files are to be deleted because the archive is too large."""
        return 0 < self.keep_bytes < self.used_bytes

    # --- rounds ------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure the archive."""
        self._look()

    def tend(self, newest: int) -> bool:
        """Compress and delete due files before `newest`; return whether more files are due."""
        try:
            oldest, plain = self._look()
            later = 0  # files left for the next rounds to compress
            if self._settings.compression != "none":
                finished = [each for each in plain if each.number < newest]
                if self._compress(finished[:_MAX_COMPRESSED]):
                    later = len(finished[_MAX_COMPRESSED:])
                oldest, _ = self._look()  # compressed files have other sizes and names
            # Compressing the remaining files may make deleting unnecessary.
            finished = [each for each in oldest if each.number < newest]
            deleted = self._delete(finished, for_size=not later)
        except OSError as error:  # the next batch also reports a broken folder
            self._tell_once("archive_not_maintained", error=error.strerror)
            return False
        return deleted == _MAX_DELETED or later > 0

    def _look(self) -> tuple[list[ArchiveFile], list[ArchiveFile]]:
        """List the files; return the oldest, and the oldest that are not compressed."""
        began_s = self._clock.monotonic_s()
        grown_before, total, count = self.grown_bytes, 0, 0
        oldest: list[ArchiveFile] = []
        plain: list[ArchiveFile] = []
        for each in archive_files(self.folder):
            total += each.disk_bytes
            count += 1
            oldest.append(each)
            if not each.is_compressed:
                plain.append(each)
            for kept in (oldest, plain):
                if len(kept) >= 2 * _MAX_DELETED:
                    kept[:] = heapq.nsmallest(_MAX_DELETED, kept)
        self._found_bytes, self._grown_before, self.files = total, grown_before, count
        self.look_s = self._clock.monotonic_s() - began_s
        return sorted(oldest)[:_MAX_DELETED], sorted(plain)[:_MAX_DELETED]

    # --- deleting ----------------------------------------------------------------------------

    def _delete(self, files: list[ArchiveFile], *, for_size: bool) -> int:
        deleted = []
        for each in files:
            if self.must_stop or not ((for_size and self.is_over) or self._is_too_old(each)):
                continue
            try:
                (self.folder / each.name).unlink(missing_ok=True)
            except OSError as error:
                self._tell_once("archive_not_deleted", name=each.name, error=error.strerror)
                break
            deleted.append(each)
            self._found_bytes -= each.disk_bytes
            self.files -= 1
            self.deleted_files += 1
            self.deleted_bytes += each.disk_bytes
        if deleted:
            sync_directory(self.folder)
            files_before, bytes_before = self._told_deleted
            if self._tell_once(
                "archive_deleted",
                files=self.deleted_files - files_before,
                bytes=self.deleted_bytes - bytes_before,
                last=deleted[-1].name,
            ):
                self._told_deleted = self.deleted_files, self.deleted_bytes
        return len(deleted)

    def _is_too_old(self, file: ArchiveFile) -> bool:
        """Whether its newest event is too old; jumps of the wall clock do not count."""
        written_ms = 1000 * max(file.modified_s, file.began_s)
        keep_for_s = self._settings.keep_for_s
        return 0 < keep_for_s < self._clock.age_s(written_ms)

    # --- compressing -------------------------------------------------------------------------

    def _compress(self, files: Iterable[ArchiveFile]) -> bool:
        """Compress files; return whether it makes sense to compress more in this round."""
        compression = self._settings.compression
        for each in files:
            if self.must_stop:
                return False
            target = each.name + SUFFIXES[compression]
            try:
                if (self.folder / target).exists():
                    if not settle_twin(self.folder, each.name, target):
                        self._tell_once("archive_not_compressed", name=each.name, error="exists")
                    continue
                compress_file(
                    self.folder, each.name, compression, self._mode, lambda: self.must_stop
                )
            except OSError as error:
                self._tell_once("archive_not_compressed", name=each.name, error=error.strerror)
                return False
        return True

    def clean_up(self) -> None:
        """Delete files that a crash left: unfinished copies, and originals of finished copies."""
        for path in self.folder.glob(".*.part"):
            if is_own(path.name):
                path.unlink(missing_ok=True)
        for each in archive_files(self.folder):
            if each.is_compressed and (self.folder / each.plain_name).exists():
                settle_twin(self.folder, each.plain_name, each.name)

    def _tell_once(self, event: str, **about: object) -> bool:
        """Log an event at most once a minute; return whether it was logged."""
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s.get(event, float("-inf")) < _LOG_AGAIN_S:
            return False
        self._told_s[event] = now_s
        level = _log.info if event == "archive_deleted" else _log.warning
        level(event, folder=str(self.folder), **about)
        return True
