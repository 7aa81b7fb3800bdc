"""Compressed bodies, optional: zstd by the package `zstandard`, the extra `pixelfast[zstd]`."""

from __future__ import annotations

from collections.abc import Callable

from pixelfast.errors import SpoolError

__all__ = ["compressor", "decompress"]

_LEVEL = 1  # of what repeats in events the first level finds nearly all
_MISSING = "{} needs the package zstandard: pip install 'pixelfast[zstd]'"


def compressor(compression: str) -> Callable[[memoryview], bytes] | None:
    """What turns a body into a smaller one; None where `compression` is "none".

    Not for several threads at once.

    Raises:
        SpoolError: the package is missing.
    """
    if compression == "none":
        return None
    try:
        import zstandard
    except ModuleNotFoundError:
        raise SpoolError(_MISSING.format('spool.compression = "zstd"')) from None
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress


def decompress(stored: memoryview, body_bytes: int) -> memoryview | None:
    """The `body_bytes` bytes that were compressed to `stored`; None where that is not so.

    No more memory is taken than for `body_bytes`, which the caller has checked.

    Raises:
        SpoolError: the package is missing. Nothing is lost: the frame stays to be read.
    """
    try:
        import zstandard
    except ModuleNotFoundError:
        raise SpoolError(_MISSING.format("reading compressed events")) from None
    try:
        if zstandard.frame_content_size(stored) != body_bytes:
            return None
        body = zstandard.ZstdDecompressor().decompress(stored, max_output_size=body_bytes)
    except zstandard.ZstdError:
        return None
    return memoryview(body) if len(body) == body_bytes else None
