"""Compressing finished files, so that at every moment a whole one is there.

A file that is written is never compressed: it stays readable to the last event, and what a crash
leaves of it is found as it always was. Once it is finished, its compressed copy is written under
another name, synced, and only then gets its own; after that the original is removed. Whole files
compress several times as well as single batches would.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pixelfast.deliver.archive.names import SUFFIXES, part_name
from pixelfast.errors import DestinationError
from pixelfast.spool.datadir import sync_directory
from pixelfast.spool.modes import PRIVATE_FILE

__all__ = ["check_compression", "compress_file", "settle_twin"]

_CHUNK_BYTES = 2**20
_PACKED_BYTES = 2**12  # read at once of a compressed file: what it expands to is kept in memory
_GZIP = 31  # zlib's wbits: deflate with gzip's header and checksum
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_MISSING = "compression = \"zstd\" needs the package zstandard: pip install 'pixelfast[zstd]'"


class _Stream(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Expander(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


def check_compression(compression: str) -> None:
    """Find out whether files can be compressed like this.

    Raises:
        DestinationError: the package is missing.
    """
    if compression == "zstd":
        try:
            import zstandard  # noqa: F401 - checks that it is installed
        except ModuleNotFoundError:
            raise DestinationError(_MISSING) from None


def compress_file(
    folder: Path, name: str, compression: str, mode: int, must_stop: Callable[[], bool]
) -> bool:
    """Replace a finished file by its compressed copy; return whether that was done.

    It is not done if `must_stop`, or if somebody has changed or removed the file meanwhile.
    Its time of modification stays. Blocks for the disk.

    Raises:
        OSError: the disk is full or fails; the file is there as it was.
    """
    target = name + SUFFIXES[compression]
    part = folder / part_name(target)
    try:
        source = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        before = os.fstat(source)
        part.unlink(missing_ok=True)
        if not _write_compressed(source, part, _stream(compression), mode, must_stop):
            return False
        now = (folder / name).stat(follow_symlinks=False)
        is_same = os.path.samestat(now, before) and now.st_size == before.st_size
        if not is_same or now.st_mtime_ns != before.st_mtime_ns:
            return False
        part.rename(folder / target)
        sync_directory(folder)
    except FileNotFoundError:
        return False
    finally:
        os.close(source)
        part.unlink(missing_ok=True)
    (folder / name).unlink(missing_ok=True)
    return True


def _write_compressed(
    source: int, part: Path, stream: _Stream, mode: int, must_stop: Callable[[], bool]
) -> bool:
    times = os.fstat(source)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        os.fchmod(fd, mode)
        while data := os.read(source, _CHUNK_BYTES):
            if must_stop():
                return False
            _write(fd, stream.compress(data))
        _write(fd, stream.flush())
        os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _stream(compression: str) -> _Stream:
    if compression == "gzip":
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    import zstandard

    stream: _Stream = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    return stream


def settle_twin(folder: Path, plain: str, compressed: str) -> bool:
    """Remove a file whose compressed copy stands beside it, and is complete; return whether it was.

    A crash can leave both. What is not exactly the same is nobody's twin: both stay.
    """
    try:
        is_same = _holds(folder / compressed, folder / plain)
    except FileNotFoundError:
        return False
    if is_same:
        (folder / plain).unlink(missing_ok=True)
    return is_same


def _holds(compressed: Path, plain: Path) -> bool:
    """Whether a compressed file is complete, holds what the other holds, and is on the disk."""
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(compressed.open("rb"))
        text = stack.enter_context(plain.open("rb"))
        expander = _expander(compressed.suffix)
        if expander is None:
            return False
        while data := packed.read(_PACKED_BYTES):
            try:
                found = expander.decompress(data)
            except Exception:  # noqa: BLE001 - whatever a library says of a file that is torn
                return False
            if found != text.read(len(found)):
                return False
        is_whole = getattr(expander, "eof", False) and not text.read(1)
        if is_whole:  # it may be another program's, which did not
            os.fsync(packed.fileno())
            sync_directory(compressed.parent)
        return is_whole


def _expander(suffix: str) -> _Expander | None:
    if suffix == ".gz":
        return zlib.decompressobj(_GZIP)
    try:
        import zstandard
    except ModuleNotFoundError:
        return None
    expander: _Expander = zstandard.ZstdDecompressor().decompressobj()
    return expander
