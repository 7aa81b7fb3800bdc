"""Problems with a path are described with their remedies."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from pixelfast.spool import describe_trouble
from pixelfast.spool.datadir import free_bytes


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOSPC, "No space left on device; free some space or choose another data_dir"),
        (errno.EDQUOT, "Disk quota exceeded; free some space or choose another data_dir"),
        (
            errno.ENOLCK,
            "the file system does not support locks (No locks available); use a local disk",
        ),
        (
            errno.EMFILE,
            "Too many open files; raise the limit of open files (LimitNOFILE= or `ulimit -n`)",
        ),
        (errno.EIO, "Input/output error"),
    ],
)
def test_each_problem_has_its_reason(number: int, reason: str) -> None:
    error = OSError(number, os.strerror(number))
    assert f"/data: {reason}" == describe_trouble(Path("/data"), error)


def test_the_path_of_the_error_is_named_if_it_differs() -> None:
    error = OSError(errno.EIO, "Input/output error", "/data/LOCK")
    assert describe_trouble(Path("/data"), error).startswith("/data/LOCK: ")


def test_permissions_are_explained_by_the_nearest_visible_owner(tmp_path: Path) -> None:
    path = tmp_path / "none" / "data"
    error = PermissionError(errno.EACCES, "Permission denied")
    said = describe_trouble(path, error)
    assert f"{path}: permission denied: {tmp_path} belongs to " in said
    assert ", this process runs as " in said


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "data"
    error = NotADirectoryError(errno.ENOTDIR, "Not a directory")
    assert f"{path}: {tmp_path}/file is not a directory" == describe_trouble(path, error)


def test_a_file_system_that_reports_no_size_is_not_full(tmp_path: Path) -> None:
    mount = ["mount", "-t", "ramfs", "ramfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a ramfs cannot be mounted here")
    try:
        assert free_bytes(tmp_path) > 2**50
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
