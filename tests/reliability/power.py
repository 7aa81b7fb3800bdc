"""Power cuts: an ext4 of its own in a file, shut down without flushing its journal.

`EXT4_IOC_SHUTDOWN` with NOLOGFLUSH (Linux, fs/ext4/ioctl.c) makes the file system forget at once
all that was not made durable, as a cut does; the next mount replays the journal.
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
        """Forget what is not durable; every later call on it fails with EIO."""
        fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def turn_read_only(self) -> None:
        """Let the kernel find an error; mounted with errors=remount-ro, writers or not."""
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        device = next(line[0] for line in mounts if line[1] == str(self.mount_point))
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """What an operator does: unmount, check, mount."""
        self.unmount()
        run("e2fsck", "-fp", self.image, accepted=(0, 1))
        self.mount()

    def unmount(self) -> None:
        """Unmount once nothing uses it any more; its loop device goes with it."""

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
    """A disk for the length of a `with`; nothing of it stays, however that ends."""
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
    """A small file system in memory for the length of a `with`."""
    mount_point.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount_point)
    try:
        yield mount_point
    finally:
        run("umount", "--lazy", mount_point)


@cache
def why_no_loop_disk() -> str:
    """Why power can't be cut here; empty where it can."""
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
