"""A simulated disk: real files in a folder, and the part of them that a power cut would leave.

While it is `in_use`, the calls of `os` that change or sync files below its root pass through it.
They are executed, so the code under test and its readers see an ordinary folder. In addition, the
disk knows which bytes and which directory entries were synced. `crash_image` creates the folder
that a machine might find after a power cut now: all data that was synced, and any part of the rest,
by block and by directory entry, in any order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["PowerCut", "SimulatedDisk"]

BLOCK_BYTES = 512
_CHANGING = "open posix_fallocate pwrite fsync fdatasync ftruncate link unlink rename replace mkdir"


class PowerCut(BaseException):
    """The machine is off: no later call changes the disk."""


class SimulatedDisk:
    """The folder `root`, whose initial contents count as synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.errors: list[tuple[str, int]] = []  # the next call of this name fails
        self.cut_after: int | None = None  # the power is cut after this many changing calls
        self.on_cut: Callable[[], None] = lambda: None
        self._next_id = 0
        self._ids: dict[int, int] = {}  # inode -> our id; inodes are reused, ids are not
        self._synced: dict[int, bytes] = {}  # a file's bytes at its last successful sync
        self._poisoned: set[int] = set()  # a sync failed, so later ones mean nothing
        self._removed: dict[int, bytes] = {}  # bytes of files whose last name is gone
        self._entries: dict[Path, dict[str, int]] = {}  # synced names of a directory
        for folder in (root, *(each for each in root.rglob("*") if each.is_dir())):
            self._entries[folder] = self._list(folder)
            for entry in folder.iterdir():
                if entry.is_file():
                    self._synced[self._id(entry)] = entry.read_bytes()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Watch the calls of `os` within a `with` block."""
        real = {name: getattr(os, name) for name in _CHANGING.split()}
        for name, function in real.items():
            setattr(os, name, self._watching(name, function))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def poison(self, fd: int) -> None:
        """Record that a sync of this file failed: its dirty pages count as clean from now on."""
        self._poisoned.add(self._id(_path_of(fd)))

    def crash_image(self, target: Path, rng: random.Random) -> None:
        """Create in `target` a folder that might be left after a power cut now."""
        self._restore(self.root, target, rng)

    # --- watching ----------------------------------------------------------------------------

    def _watching(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = self._path_in(arguments[0])
            if path is None or (name == "open" and not arguments[1] & os.O_CREAT):
                return real(*arguments, **options)
            self._count_down()
            for place, (failing, error) in enumerate(self.errors):
                if failing == name:
                    del self.errors[place]
                    if name in {"fsync", "fdatasync"} and path.is_file():
                        self._poisoned.add(self._id(path))
                    raise OSError(error, os.strerror(error), str(path))
            if name in {"fsync", "fdatasync"}:
                self._sync(path)
                return None
            if name in {"unlink", "rename", "replace"}:
                self._forget(path if name == "unlink" else Path(arguments[1]))
            return real(*arguments, **options)

        return call

    def _count_down(self) -> None:
        if self.cut_after is not None:
            if self.cut_after <= 0:
                self.cut_after = None
                self.on_cut()
                raise PowerCut
            self.cut_after -= 1

    def _path_in(self, what: Any) -> Path | None:
        path = _path_of(what) if isinstance(what, int) else Path(what)
        return path if path.is_relative_to(self.root) else None

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self._entries[path] = self._list(path)
        elif self._id(path) not in self._poisoned:
            self._synced[self._id(path)] = path.read_bytes()

    def _forget(self, path: Path) -> None:
        """Remove a name; if it is the last one of a file, its inode may be reused."""
        if path.exists() and path.stat().st_nlink == 1:
            self._removed[self._id(path)] = path.read_bytes()
            del self._ids[path.stat().st_ino]

    def _id(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._ids:
            self._ids[inode] = self._next_id
            self._next_id += 1
        return self._ids[inode]

    def _list(self, folder: Path) -> dict[str, int]:
        return {entry.name: self._id(entry) for entry in folder.iterdir()}

    # --- after the cut -----------------------------------------------------------------------

    def _bytes_of(self, one: int) -> bytes:
        """Return the bytes of a file that lost a name: it is removed, or has another name."""
        if one in self._removed:
            return self._removed[one]
        files = (path for path in self.root.rglob("*") if path.is_file())
        return next(path for path in files if self._id(path) == one).read_bytes()

    def _restore(self, folder: Path, target: Path, rng: random.Random) -> None:
        target.mkdir()
        synced, now = self._entries.get(folder, {}), self._list(folder)
        for name in sorted(synced.keys() | now.keys()):
            before, after = synced.get(name), now.get(name)
            chosen = before if before == after else rng.choice([before, after])
            if chosen is None:
                continue
            path = folder / name
            if chosen == after and path.is_dir():
                self._restore(path, target / name, rng)
            else:
                current = path.read_bytes() if chosen == after else self._bytes_of(chosen)
                (target / name).write_bytes(_mixed(self._synced.get(chosen), current, rng))


def _mixed(synced: bytes | None, current: bytes, rng: random.Random) -> bytes:
    """Return a file's bytes after a power cut: each block as it was synced, or as it is now."""
    old = synced if synced is not None else b""
    if old == current:
        return current
    size = rng.choice([len(old), len(current)])
    old, new = old.ljust(size, b"\0"), current.ljust(size, b"\0")
    mode = rng.random()  # often none or all of it, which is most frequent on real disks
    kept = 0.0 if mode < 0.3 else 1.0 if mode > 0.8 else 0.5
    blocks = range(0, size, BLOCK_BYTES)
    return b"".join(
        (new if rng.random() < kept else old)[at : min(at + BLOCK_BYTES, size)] for at in blocks
    )


def _path_of(fd: Any) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115 - it need not exist any more
