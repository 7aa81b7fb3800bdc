"""Who may read what pixelfast keeps: its own user, and nobody else.

Events hold addresses and names of visitors, and a lock on a file that a stranger can open is a lock
that a stranger can hold. So the data directory has mode 0700 and files have 0600. The program's
umask does that for everything that is made, by libraries as well (`pixelfast.cli.main`);
`correct_modes` does it for what was there before.
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
    """Correct the modes of a folder and of what is in it; one line in the log says how many were.

    Of the folder's entries those with own names, with all that is below them; others stay as they
    are, and so does the folder itself where `root_mode` is None. Symbolic links are not followed,
    files with several hard links and other file systems are left alone: whoever could write into
    the folder could have put them there to have another file changed. Only where `root` itself is a
    link it was put there by the operator. Blocks for the disk. What fails is logged, not raised.
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
    """Goes down a tree by descriptors, so that nobody can swap a folder for a link meanwhile."""

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
            mode |= there.st_mode & (stat.S_ISGID | stat.S_ISVTX)  # these give nobody more
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
                return False  # somebody has put something else there meanwhile
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
