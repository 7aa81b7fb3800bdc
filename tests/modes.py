"""Permissions of files, and the umask that applies when they are created."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask while the body runs."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> str:
    """Return the permissions of a file as four octal digits; symbolic links are not followed."""
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"
