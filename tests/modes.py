"""The permissions of files, and the umask that they are made under."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Make files under this umask while the body runs."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> str:
    """A file's permissions as four octal digits; of a symbolic link its own."""
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"
