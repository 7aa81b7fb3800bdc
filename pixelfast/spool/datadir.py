"""The data directory: its owner, its node id, and the location of its parts."""

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
    OLDEST_VERSION,
    SEGMENT_HEADER_BYTES,
    UNKNOWN_VERSION,
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

# The entries of a data directory; `demo-write-key` is created by a start without settings.
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
    """Make files that were created, renamed or removed in a directory survive a power failure.

    Without this, a file on ext4 that was renamed and synced itself was gone after a power failure.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, so that they survive a power failure."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    while not path.is_dir():
        try:
            path.mkdir(PRIVATE_FOLDER, parents=True)
        except FileExistsError:
            # Another process may have created the directory, and may have removed it again.
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(path.lstat().st_mode):
                    raise
    for made in missing:
        sync_directory(made.parent)


def lock_file(path: Path, *, shared: bool = False) -> int:
    """Lock a file, which is created if it is missing; return the descriptor that holds the lock.

    Does not wait. The lock ends with the process, however that ends. The file is private, because
    anyone who can open a file can hold its lock.

    Raises:
        SpoolLocked: another process holds it; the message names it if the kernel reports it.
        FileNotFoundError: its directory is missing.
    """
    fd = try_lock_file(path, shared=shared)
    if fd is None:
        raise SpoolLocked(f"{path} is held by {_holder(path)}")
    return fd


def try_lock_file(path: Path, *, shared: bool = False) -> int | None:
    """Do the same as `lock_file`, but return None if another process holds the lock."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, PRIVATE_FILE)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # The previous holder may have removed the file; then this lock excludes nobody.
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
    """Return which process holds the lock on a file, from /proc/locks (proc(5))."""
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
    """Describe a process by its id, name and user, as far as they are known."""
    if pid <= 0:
        return "a process of another container"
    words = f"process {pid}"
    with contextlib.suppress(OSError, KeyError):
        folder = Path(f"/proc/{pid}")
        words += f" ({folder.joinpath('comm').read_text(errors='replace').strip()})"
        words += f" of user {pwd.getpwuid(folder.stat().st_uid).pw_name}"
    return words


def free_bytes(path: Path) -> int:
    """Return how many bytes are free for users other than root on the file system of `path`.

    Some file systems, such as ramfs and some of FUSE, do not report this; writes fail when they are
    full.
    """
    found = os.statvfs(path)
    if found.f_blocks == 0:
        return _UNCOUNTED_BYTES
    return found.f_bavail * found.f_frsize


class DataDir:
    """The directory with all data of pixelfast.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = DataDir.open(folder)
    ...     data.slot_dir(0).relative_to(folder).as_posix(), len(data.node)
    ('shards/0', 16)
    """

    def __init__(self, path: Path, node: bytes, version: int = FORMAT_VERSION) -> None:
        self.path = path
        self.node = node
        self._version = version  # of META
        self.lock_fd = -1  # holds the lock once the directory is locked
        self._slot_dirs: dict[int, Path] = {}

    @classmethod
    def open(cls, path: str | Path) -> DataDir:
        """Open a data directory, which is created if it is missing.

        Raises:
            SpoolError: it cannot be created or read, or has another format.
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
        """Open an existing data directory for reading only; nothing is written.

        Raises:
            SpoolError: it does not exist, cannot be read, or has another format.
        """
        root = Path(path).absolute()
        meta_path = root / "META"
        try:
            meta = msgspec.json.decode(meta_path.read_bytes(), type=_Meta)
            node = bytes.fromhex(meta.node)
        except FileNotFoundError as error:
            what = "contains no pixelfast data" if root.exists() else "does not exist"
            what += "; start the server first, or specify another one with --data-dir or --config"
            raise SpoolError(f"data directory {root}: {what}") from error
        except OSError as error:
            raise SpoolError(f"data directory {describe_trouble(root, error)}") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise SpoolError(f"{meta_path} is damaged: {error}") from error
        if not OLDEST_VERSION <= meta.format <= FORMAT_VERSION:
            raise SpoolError(
                f"{meta_path}: unknown format {meta.format}, this program reads"
                f" {OLDEST_VERSION} to {FORMAT_VERSION}; use the version of pixelfast that wrote it"
            )
        if len(node) != 16:
            raise SpoolError(f"{meta_path} is damaged: node of {len(node)} bytes, not 16")
        return cls(root, node, meta.format)

    def upgrade(self) -> None:
        """Set the format in META to the current one, before the first segment is written.

        An older program, which cannot read such segments, then exits at its start with an error.

        Raises:
            OSError: META cannot be written.
        """
        if self._version != FORMAT_VERSION:
            with _new_meta(self.path, self.node) as temporary:
                temporary.replace(self.path / "META")
                sync_directory(self.path)
            self._version = FORMAT_VERSION

    def make_private(self) -> None:
        """Correct the modes of existing files and folders, and log how many were corrected.

        Blocks for the disk.
        """
        correct_modes(self.path, lambda name: name.partition(".")[0] in _OWN_NAMES)

    def lock(self) -> int:
        """Lock the directory; the descriptor holds the lock.

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
        with contextlib.suppress(OSError):  # on a full disk, `owner` does not know the process
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
            pass  # no process has locked it, or one of another user has
        return 0

    def slot_dir(self, slot: int) -> Path:
        if slot not in self._slot_dirs:
            self._slot_dirs[slot] = self.path / "shards" / str(slot)
        return self._slot_dirs[slot]

    def high_water_path(self, slot: int) -> Path:
        return self.path / "shards" / f"{slot}.last"

    @property
    def retention_lock_path(self) -> Path:
        """The lock of the process that removes and recycles segments."""
        return self.path / "shards" / "retention.lock"

    def slots(self) -> list[int]:
        """Return the slots that exist, in order."""
        names = [entry.name for entry in (self.path / "shards").iterdir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def segments(self, slot: int) -> list[int]:
        """Return the numbers of a slot's segments, in order; none if there is no such slot."""
        return self._numbers(slot, "seg")

    def spares(self, slot: int) -> list[int]:
        """Return the numbers that a slot's spares had as segments, in order."""
        return self._numbers(slot, "spare")

    def _numbers(self, slot: int, ending: str) -> list[int]:
        try:
            names = os.listdir(self.slot_dir(slot))  # noqa: PTH208 - 20 times a second
        except FileNotFoundError:
            return []
        return sorted(n for name in names if (n := segment_number(name, ending)) is not None)

    def is_there(self, slot: int, number: int, fd: int) -> bool:
        """Return whether an open file still has the name of a segment."""
        try:
            there = os.stat(self.slot_dir(slot) / segment_name(number))  # noqa: PTH116
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def identify(self, slot: int, number: int, fd: int) -> SegmentId | None:
        """Return which segment an open file is.

        Return None if its version is newer, or if it was recycled since it was opened.
        """
        expected = SegmentId(self.node, slot, number, UNKNOWN_VERSION)
        header = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
        try:
            return parse_segment_header(header, expected, segment_name(number))
        except NewerSegment:
            return None
        except MovedSegment as moved:
            # A file loses its name before it gets the header of another segment.
            return moved.found if self.is_there(slot, number, fd) else None
        except SpoolCorrupt:
            return expected  # readers report it

    @contextlib.contextmanager
    def open_segment(self, slot: int, number: int) -> Iterator[tuple[int, SegmentId] | None]:
        """Yield a segment's descriptor for reading, and which segment it is.

        Yield None if the segment does not exist or its version is newer.
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
        """Return whether there is anything where a segment's first frame begins."""
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
        """Return the newest segment of a slot that has a frame, or 0 if none has.

        If a collector writes into the slot, it writes into this segment; later ones were created in
        advance.
        """
        return next((n for n in reversed(self.segments(slot)) if self.has_frame(slot, n)), 0)

    def is_newer(self, slot: int, number: int) -> bool:
        """Return whether a segment has a version that this program does not know."""
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
    """Write META completely or not at all, by a link: a rename would replace another process's."""
    if meta_path.exists():
        return
    with _new_meta(root, uuid.uuid4().bytes) as temporary:
        os.link(temporary, meta_path)
        sync_directory(root)


@contextlib.contextmanager
def _new_meta(root: Path, node: bytes) -> Iterator[Path]:
    """Yield the path of a temporary file with the contents of a META of the current format."""
    # Random: two containers on one volume may have the same process id.
    temporary = root / f"META.{uuid.uuid4().hex}"
    meta = _Meta(format=FORMAT_VERSION, node=node.hex())
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(meta) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
