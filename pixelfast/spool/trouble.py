"""Describes problems with a path, and what an operator can do about them."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

__all__ = ["describe_trouble"]

_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4095


def describe_trouble(path: Path, error: OSError) -> str:
    """Return the path at fault, the problem and the remedy, in one line.

    `path` is the path that was to be used; the error may name one of its parents.

    >>> describe_trouble(Path("/data"), OSError(errno.EROFS, "Read-only file system"))
    '/data: the file system is read-only'
    """
    where = Path(os.fsdecode(error.filename)) if error.filename else path
    return f"{where}: {_reason(where, error)}"


def _reason(path: Path, error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{_first_file(path)} is not a directory"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied: {_owners(path)}"
    if error.errno == errno.EROFS:
        return "the file system is read-only"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free some space or choose another data_dir"
    if error.errno == errno.ENAMETOOLONG:
        longest = max(len(os.fsencode(part)) for part in path.parts)
        if longest > _MAX_NAME_BYTES:
            return f"a name has {longest:,} bytes; the limit is {_MAX_NAME_BYTES}"
        return f"the path has {len(os.fsencode(path)):,} bytes; the limit is {_MAX_PATH_BYTES:,}"
    if error.errno in _NO_LOCKS:
        return f"the file system does not support locks ({error.strerror}); use a local disk"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}; raise the limit of open files (LimitNOFILE= or `ulimit -n`)"
    return error.strerror or str(error)


def _first_file(path: Path) -> Path:
    """Return the part of a path that is not a directory although it should be."""
    for each in (*reversed(path.parents), path):
        if os.path.lexists(each) and not each.is_dir():
            return each
    return path


def _owners(path: Path) -> str:
    """Return who owns the nearest visible part of a path, and as whom this process runs."""
    user = f"this process runs as {_user(os.geteuid())}"
    for each in (path, *path.parents):
        try:
            there = each.stat()
        except OSError:
            continue
        return f"{each} belongs to {_user(there.st_uid)}, {user}"
    return user


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
