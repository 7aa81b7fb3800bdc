"""File permissions: only the user of pixelfast may read its data.

Events contain addresses and names of visitors, and a user who can open a lock file can hold its
lock. Therefore, the data directory has mode 0700 and its files 0600. The program's umask ensures
this for all new files, including those of libraries (`pixelfast.cli.main`); `correct_modes` ensures
it for existing ones.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import structlog

__all__ = ["PRIVATE_FILE", "PRIVATE_FOLDER", "correct_modes"]

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
_log = structlog.get_logger("spool")


def correct_modes(
    root: Path,
    is_own: Callable[[str], bool],
    *,
    file_mode: int = PRIVATE_FILE,
    root_mode: int | None = PRIVATE_FOLDER,
) -> None:
    """Correct the modes of a folder and of its contents, and log how many were corrected.

    Only entries for whose names `is_own` is true are changed, with everything below them. The
    folder itself is not changed if `root_mode` is None. Symbolic links are not followed, and files
    with several hard links and other file systems are left unchanged: another user who could write
    to the folder may have put them there to have a different file changed. Only `root` itself may
    be a link, which the operator has created. Blocks for the disk. Errors are logged, not raised.
    """
    walk = _Walk(file_mode)
    try:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        walk.fail(str(root), error)
    else:
        try:
            walk.root(folder, str(root), is_own, root_mode)
        finally:
            os.close(folder)
    if walk.files or walk.folders:
        _log.warning("modes_corrected", path=str(root), files=walk.files, folders=walk.folders)
    if walk.failed:
        path, reason = walk.failed[0]
        _log.warning("modes_not_corrected", count=len(walk.failed), path=path, error=reason)


class _Walk:
    """Walks a tree by descriptors, so that no other user can replace a folder by a link."""

    def __init__(self, file_mode: int) -> None:
        self.files = 0
        self.folders = 0
        self.failed: list[tuple[str, str]] = []  # path and reason
        self._file_mode = file_mode
        self._device = 0

    def root(
        self, fd: int, path: str, is_own: Callable[[str], bool], root_mode: int | None
    ) -> None:
        there = os.fstat(fd)
        self._device = there.st_dev
        if root_mode is not None and there.st_mode & stat.S_ISVTX:
            self.failed.append((path, "it is shared with other users (sticky bit)"))
        elif root_mode is not None:
            self.folders += self._correct(fd, ".", path, there, root_mode)
        self._entries(fd, ".", path, is_own)

    def fail(self, path: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed meanwhile: nothing to correct
            self.failed.append((path, error.strerror or str(error)))

    def _entries(self, parent: int, name: str, path: str, is_own: Callable[[str], bool]) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=parent)
        except OSError as error:
            self.fail(path, error)
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if is_own(entry.name):
                        self._entry(fd, entry, f"{path}/{entry.name}")
        finally:
            os.close(fd)

    def _entry(self, parent: int, entry: os.DirEntry[str], path: str) -> None:
        try:
            there = entry.stat(follow_symlinks=False)
        except OSError as error:
            self.fail(path, error)
            return
        if there.st_dev != self._device:
            return
        if stat.S_ISDIR(there.st_mode):
            self.folders += self._correct(parent, entry.name, path, there, PRIVATE_FOLDER)
            self._entries(parent, entry.name, path, lambda _: True)
        elif stat.S_ISREG(there.st_mode):
            self.files += self._correct(parent, entry.name, path, there, self._file_mode)

    def _correct(self, parent: int, name: str, path: str, there: os.stat_result, mode: int) -> bool:
        if stat.S_ISDIR(there.st_mode):
            mode |= there.st_mode & (stat.S_ISGID | stat.S_ISVTX)  # these give no user more access
        if stat.S_IMODE(there.st_mode) == mode:
            return False
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            self.fail(path, error)
            return False
        try:
            now = os.fstat(fd)
            if stat.S_IFMT(now.st_mode) != stat.S_IFMT(there.st_mode):
                return False  # it was replaced meanwhile
            if stat.S_ISREG(now.st_mode) and now.st_nlink > 1:
                self.failed.append((path, "it has another name somewhere (hard link)"))
                return False
            os.chmod(f"/proc/self/fd/{fd}", mode)  # noqa: PTH101 - fchmod takes no O_PATH
        except OSError as error:
            self.fail(path, error)
            return False
        finally:
            os.close(fd)
        return True
