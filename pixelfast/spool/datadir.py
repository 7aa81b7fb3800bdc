"""The data directory: who owns it, which node it is, and where its parts lie."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pixelfast.errors import SpoolCorrupt, SpoolError, SpoolLocked
from pixelfast.spool.format import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
    MovedSegment,
    NewerSegment,
    SegmentId,
    parse_segment_header,
    segment_name,
    segment_number,
)
from pixelfast.spool.frames import FRAME_HEADER_BYTES
from pixelfast.spool.modes import PRIVATE_FILE, PRIVATE_FOLDER, correct_modes
from pixelfast.spool.trouble import describe_trouble

__all__ = [
    "DataDir",
    "free_bytes",
    "lock_file",
    "make_directory",
    "sync_directory",
    "try_lock_file",
]

# What stands in a data directory; `demo-write-key` is of a first try without settings.
_OWN_NAMES = (
    *(
        "META",
        "LOCK",
        "clock",
        "reload",
        "upgrade",
        "shards",
        "dest",
        "dead",
        "quarantine",
        "events",
    ),
    "demo-write-key",
)


_UNCOUNTED_BYTES = 2**60


class _Meta(msgspec.Struct):
    format: int
    node: str


def sync_directory(path: str | Path) -> None:
    """Make what was created, renamed or removed in a directory last through a power cut.

    On ext4 a file that was renamed and synced itself was gone after a power cut without this.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory and what is missing above it, all of it to last."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    while not path.is_dir():
        try:
            path.mkdir(PRIVATE_FOLDER, parents=True)
        except FileExistsError:
            # A directory that another process made, and may have removed again, is well.
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(path.lstat().st_mode):
                    raise
    for made in missing:
        sync_directory(made.parent)


def lock_file(path: Path, *, shared: bool = False) -> int:
    """Take the lock on a file, made where it is missing; returns the descriptor that holds it.

    Does not wait. The lock goes with the process, however it ends. The file is private: who can
    open a file can hold its lock.

    Raises:
        SpoolLocked: another process holds it; the message says which, where the kernel tells.
        FileNotFoundError: its directory is missing.
    """
    fd = try_lock_file(path, shared=shared)
    if fd is None:
        raise SpoolLocked(f"{path} is held by {_holder(path)}")
    return fd


def try_lock_file(path: Path, *, shared: bool = False) -> int | None:
    """As `lock_file`; None if another process holds the lock."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, PRIVATE_FILE)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # Who held it before may have removed the file: then this lock is nobody's.
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _holder(path: Path) -> str:
    """Who holds the lock on a file, by proc(5), "/proc/locks"."""
    with contextlib.suppress(OSError):
        there = path.stat()
        device = there.st_dev
        wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{there.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fd:01:131075 0 EOF
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
                return _process(int(fields[4]))
    return "another process"


def _process(pid: int) -> str:
    """A process as people know it: its number, name and user, as far as they are known."""
    if pid <= 0:
        return "a process of another container"
    words = f"process {pid}"
    with contextlib.suppress(OSError, KeyError):
        folder = Path(f"/proc/{pid}")
        words += f" ({folder.joinpath('comm').read_text(errors='replace').strip()})"
        words += f" of user {pwd.getpwuid(folder.stat().st_uid).pw_name}"
    return words


def free_bytes(path: Path) -> int:
    """How many bytes the file system of `path` has for those who are not root.

    Some do not count, such as ramfs and some of FUSE: they say when they are full.
    """
    found = os.statvfs(path)
    if found.f_blocks == 0:
        return _UNCOUNTED_BYTES
    return found.f_bavail * found.f_frsize


class DataDir:
    """Everything that pixelfast keeps.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = DataDir.open(folder)
    ...     data.slot_dir(0).relative_to(folder).as_posix(), len(data.node)
    ('shards/0', 16)
    """

    def __init__(self, path: Path, node: bytes) -> None:
        self.path = path
        self.node = node
        self.lock_fd = -1  # that holds it, once it is locked
        self._slot_dirs: dict[int, Path] = {}

    @classmethod
    def open(cls, path: str | Path) -> DataDir:
        """Open a data directory, made where it is missing.

        Raises:
            SpoolError: it can't be made or read, or is of another format.
        """
        root = Path(path).absolute()
        try:
            for folder in (root, *(root / name for name in ("shards", "dest", "quarantine"))):
                make_directory(folder)
            with contextlib.suppress(FileExistsError):
                _create_meta(root, root / "META")
        except OSError as error:
            raise SpoolError(f"data directory {describe_trouble(root, error)}") from error
        return cls.find(root)

    @classmethod
    def find(cls, path: str | Path) -> DataDir:
        """Open a data directory that is there, only to look at it: nothing is written.

        Raises:
            SpoolError: there is none, it can't be read, or it is of another format.
        """
        root = Path(path).absolute()
        meta_path = root / "META"
        try:
            meta = msgspec.json.decode(meta_path.read_bytes(), type=_Meta)
            node = bytes.fromhex(meta.node)
        except FileNotFoundError as error:
            what = "exists, but pixelfast did not create it" if root.exists() else "does not exist"
            what += "; specify it with --data-dir, or a settings file with --config"
            raise SpoolError(f"data directory {root}: {what}") from error
        except OSError as error:
            raise SpoolError(f"data directory {describe_trouble(root, error)}") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise SpoolError(f"{meta_path} is damaged: {error}") from error
        if meta.format != FORMAT_VERSION:
            raise SpoolError(
                f"{meta_path}: format {meta.format}, this program reads {FORMAT_VERSION}"
            )
        if len(node) != 16:
            raise SpoolError(f"{meta_path} is damaged: node of {len(node)} bytes, not 16")
        return cls(root, node)

    def make_private(self) -> None:
        """Correct the modes of what is there already; logs what was corrected.

        Blocks for the disk.
        """
        correct_modes(self.path, lambda name: name.partition(".")[0] in _OWN_NAMES)

    def lock(self) -> int:
        """Own the directory; keep the descriptor for as long.

        Raises:
            SpoolLocked: another pixelfast uses it.
        """
        try:
            fd = lock_file(self.path / "LOCK")
        except SpoolLocked as error:
            raise SpoolLocked(
                f"another pixelfast uses the data directory {self.path}, or another program"
                f" holds its lock: {error}"
            ) from None
        except OSError as error:
            raise SpoolError(describe_trouble(self.path / "LOCK", error)) from error
        with contextlib.suppress(OSError):  # a full disk: then `owner` does not know it
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self.lock_fd = fd
        return fd

    def owner(self) -> int:
        """Return the process that has locked the directory; 0 if there is none."""
        path = self.path / "LOCK"
        try:
            pid = int(path.read_text())
            there = path.stat()
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    if os.path.samestat(each.stat(), there):
                        return pid
        except (OSError, ValueError):
            pass  # nobody has locked it, or somebody else's process
        return 0

    def slot_dir(self, slot: int) -> Path:
        if slot not in self._slot_dirs:
            self._slot_dirs[slot] = self.path / "shards" / str(slot)
        return self._slot_dirs[slot]

    def high_water_path(self, slot: int) -> Path:
        return self.path / "shards" / f"{slot}.last"

    def slots(self) -> list[int]:
        """The slots that exist, in order."""
        names = [entry.name for entry in (self.path / "shards").iterdir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def segments(self, slot: int) -> list[int]:
        """The numbers of a slot's segments, in order; none where there is no such slot."""
        try:
            names = os.listdir(self.slot_dir(slot))  # noqa: PTH208 - 20 times a second
        except FileNotFoundError:
            return []
        return sorted(n for name in names if (n := segment_number(name)) is not None)

    def identify(self, slot: int, number: int, fd: int) -> SegmentId | None:
        """What the checksums of an open segment start from; None where its version is newer."""
        expected = SegmentId(self.node, slot, number)
        header = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
        try:
            parse_segment_header(header, expected, segment_name(number))
        except NewerSegment:
            return None
        except MovedSegment as moved:
            return moved.found
        except SpoolCorrupt:
            pass  # readers say so
        return expected

    @contextlib.contextmanager
    def open_segment(self, slot: int, number: int) -> Iterator[tuple[int, SegmentId] | None]:
        """A segment's descriptor to read from, and what its checksums start from.

        None where there is no such segment, or it is of a newer version.
        """
        try:
            fd = os.open(self.slot_dir(slot) / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            identity = self.identify(slot, number, fd)
            yield None if identity is None else (fd, identity)
        finally:
            os.close(fd)

    def has_frame(self, slot: int, number: int) -> bool:
        """Whether anything stands where a segment's first frame begins."""
        try:
            fd = os.open(self.slot_dir(slot) / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if not any(os.pread(fd, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES)):
                return False
            return self.identify(slot, number, fd) is not None
        finally:
            os.close(fd)

    def newest_written(self, slot: int) -> int:
        """The newest segment of a slot that holds a frame; 0 where none does.

        It is the one that is written, if any is; those behind it were made ahead.
        """
        return next((n for n in reversed(self.segments(slot)) if self.has_frame(slot, n)), 0)

    def is_newer(self, slot: int, number: int) -> bool:
        """Whether a segment is of a version that this program does not know."""
        path = self.slot_dir(slot) / segment_name(number)
        with self.open_segment(slot, number) as opened:
            return opened is None and path.exists()

    def destination_dir(self, name: str) -> Path:
        return self.path / "dest" / name

    def dead_dir(self, name: str) -> Path:
        return self.path / "dead" / name

    def events_dir(self, name: str) -> Path:
        return self.path / "events" / name

    @property
    def quarantine_dir(self) -> Path:
        return self.path / "quarantine"


def _create_meta(root: Path, meta_path: Path) -> None:
    """Write META whole or not at all: a link, because a rename would replace another's."""
    if meta_path.exists():
        return
    # Random: two containers on one volume may have the same process id.
    temporary = root / f"META.{uuid.uuid4().hex}"
    meta = _Meta(format=FORMAT_VERSION, node=uuid.uuid4().hex)
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(meta) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, meta_path)
        sync_directory(root)
    finally:
        temporary.unlink(missing_ok=True)
