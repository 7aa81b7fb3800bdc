"""The names of an archive's files; other files in its folder are not touched."""

from __future__ import annotations

import calendar
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["LOCK", "SUFFIXES", "ArchiveFile", "archive_files", "file_name", "is_own", "part_name"]

LOCK = ".lock"
SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}  # by `compression`
_NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d{8,})(-[0-9a-f]{8})?\.ndjson(\.gz|\.zst)?")
_PART = re.compile(r"\.\d{8}T\d{6}Z-\d{8,}(-[0-9a-f]{8})?\.ndjson(\.gz|\.zst)\.part")


class ArchiveFile(NamedTuple):
    """A file of an archive. Files sort in the order in which they were written.

    Attributes:
        disk_bytes: the disk space that it uses.
        modified_s: when it was last written, in seconds since 1970.
    """

    number: int
    name: str
    disk_bytes: int
    modified_s: float

    @property
    def is_compressed(self) -> bool:
        return not self.name.endswith(".ndjson")

    @property
    def plain_name(self) -> str:
        """Its name before it was compressed."""
        return f"{self.name.partition('.')[0]}.ndjson"

    @property
    def began_s(self) -> float:
        """When it was created, from its name, in seconds since 1970.

        >>> ArchiveFile(1, "20270115T080000Z-00000001.ndjson", 0, 0.0).began_s
        1800000000.0
        """
        return float(calendar.timegm(time.strptime(self.name[:16], "%Y%m%dT%H%M%SZ")))


def file_name(began_s: float, number: int, machine: str = "") -> str:
    """Return the name of a file that is created at `began_s`, by one of several machines if given.

    >>> file_name(1_800_000_000.0, 7), file_name(1_800_000_000.0, 7, "1f0c93aa")
    ('20270115T080000Z-00000007.ndjson', '20270115T080000Z-00000007-1f0c93aa.ndjson')
    """
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began_s))
    return f"{began}-{number:08d}{machine and '-'}{machine}.ndjson"


def part_name(name: str) -> str:
    """Return the name of a compressed file until it is complete."""
    return f".{name}.part"


def is_own(name: str) -> bool:
    """Whether a file of this name belongs to a file destination.

    >>> is_own("20270115T080000Z-00000007.ndjson.gz"), is_own("notes.ndjson")
    (True, False)
    >>> is_own("20270115T080000Z-00000007-1f0c93aa.ndjson")
    True
    """
    return name == LOCK or _NAME.fullmatch(name) is not None or _PART.fullmatch(name) is not None


def archive_files(folder: Path) -> Iterator[ArchiveFile]:
    """Yield the regular files of an archive, in any order.

    An archive of one year may have half a million files. Blocks for the disk.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            try:
                there = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # it was moved in the meantime
                continue
            if stat.S_ISREG(there.st_mode):
                yield ArchiveFile(int(match[2]), entry.name, there.st_blocks * 512, there.st_mtime)
