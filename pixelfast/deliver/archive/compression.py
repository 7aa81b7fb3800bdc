"""Compressing finished files so that a complete file exists at every moment.

The file that is being written is not compressed, so that all its events are readable and a crash
leaves plain lines. When a file is finished, its compressed copy is written under a temporary name,
synced and renamed; then the original is deleted. Compressing whole files saves several times as
much as compressing single batches.
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
_PACKED_BYTES = 2**12  # read at once of a compressed file, because it expands in memory
_GZIP = 31  # zlib's wbits: deflate with gzip's header and checksum
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_MISSING = "compression = \"zstd\" requires the package zstandard: pip install 'pixelfast[zstd]'"


class _Stream(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Expander(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


def check_compression(compression: str) -> None:
    """Check that files can be compressed with this method.

    Raises:
        DestinationError: the package that it requires is not installed.
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

    The file is left as it is if `must_stop` returns True, or if another process changes or removes
    it in the meantime. The copy has the same modification time. Blocks for the disk.

    Raises:
        OSError: the disk is full or fails; the file is unchanged.
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
    """Delete a file that has a complete compressed copy; return whether it was deleted.

    A crash can leave both. If the contents differ, both are kept.
    """
    try:
        is_same = _holds(folder / compressed, folder / plain)
    except FileNotFoundError:
        return False
    if is_same:
        (folder / plain).unlink(missing_ok=True)
    return is_same


def _holds(compressed: Path, plain: Path) -> bool:
    """Whether a compressed file is complete and has the contents of `plain`; sync it if so."""
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(compressed.open("rb"))
        text = stack.enter_context(plain.open("rb"))
        expander = _expander(compressed.suffix)
        if expander is None:
            return False
        while data := packed.read(_PACKED_BYTES):
            try:
                found = expander.decompress(data)
            except Exception:  # noqa: BLE001 - any error of a library about a damaged file
                return False
            if found != text.read(len(found)):
                return False
        is_whole = getattr(expander, "eof", False) and not text.read(1)
        if is_whole:  # another program may have written it without a sync
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
