"""Power cuts: a separate ext4 in a file, which is shut down without flushing its journal.

`EXT4_IOC_SHUTDOWN` with NOLOGFLUSH (Linux, fs/ext4/ioctl.c) makes the file system immediately
forget all data that is not durable, as a power cut does; the next mount replays the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.waiting import wait_until

__all__ = ["LoopDisk", "loop_disk", "tmpfs", "why_no_loop_disk"]

_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125  # _IOR('X', 125, __u32)
_NOLOGFLUSH = 2
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: object, accepted: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": _PATH},
        check=False,
        timeout=60,
    )
    if done.returncode not in accepted:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")


class LoopDisk:
    """An ext4 in a file, mounted."""

    def __init__(self, folder: Path, size_bytes: int = 256 * 2**20) -> None:
        self.image = folder / "disk.img"
        self.mount_point = folder / "disk"
        self.is_mounted = False
        self.mount_point.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(size_bytes)
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", self.image)
        self.mount()

    def mount(self, options: str = "loop") -> None:
        run("mount", "-o", options, self.image, self.mount_point)
        self.is_mounted = True

    def cut_power(self) -> None:
        """Forget all data that is not durable; every later call fails with EIO."""
        fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def turn_read_only(self) -> None:
        """Make the kernel find an error; with errors=remount-ro, the disk becomes read-only."""
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        device = next(line[0] for line in mounts if line[1] == str(self.mount_point))
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """Unmount, check and mount the disk, as an operator does."""
        self.unmount()
        run("e2fsck", "-fp", self.image, accepted=(0, 1))
        self.mount()

    def unmount(self) -> None:
        """Unmount once nothing uses the disk any more; its loop device is removed, too."""

        def is_free() -> bool:
            with contextlib.suppress(OSError):
                run("umount", self.mount_point)
                self.is_mounted = False
            return not self.is_mounted

        wait_until(is_free, f"umount of {self.mount_point}", 20)

    def remount(self) -> None:
        self.unmount()
        self.mount()


@contextmanager
def loop_disk(folder: Path, size_bytes: int = 256 * 2**20) -> Iterator[LoopDisk]:
    """Provide a disk within a `with` block, and remove it afterwards."""
    disk = None
    try:
        disk = LoopDisk(folder, size_bytes)
        yield disk
    finally:
        if disk is not None and disk.is_mounted:
            with contextlib.suppress(AssertionError):
                disk.unmount()
            if disk.is_mounted:
                run("umount", "--lazy", disk.mount_point)
        (folder / "disk.img").unlink(missing_ok=True)


@contextmanager
def tmpfs(mount_point: Path, size: str) -> Iterator[Path]:
    """Provide a small file system in memory within a `with` block."""
    mount_point.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount_point)
    try:
        yield mount_point
    finally:
        run("umount", "--lazy", mount_point)


@cache
def why_no_loop_disk() -> str:
    """Return why power cuts are not possible here, or "" if they are."""
    if os.geteuid():
        return "needs root for loop mounts"
    if not shutil.which("mkfs.ext4", path=_PATH):
        return "needs mkfs.ext4 (e2fsprogs)"
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pixelfast-") as folder:
        try:
            with loop_disk(Path(folder), 16 * 2**20) as disk:
                disk.cut_power()
        except (OSError, AssertionError) as error:
            return f"no ext4 in a loop device here: {error}"
    return ""
