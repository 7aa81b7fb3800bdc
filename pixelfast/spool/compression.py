"""Optional compression of bodies: zstd by the package `zstandard`, the extra `pixelfast[zstd]`."""

from __future__ import annotations

from collections.abc import Callable

from pixelfast.errors import SpoolError

__all__ = ["compressor", "decompress"]

_LEVEL = 1  # finds nearly all repetitions in events
_MISSING = "{} needs the package zstandard: pip install 'pixelfast[zstd]'"


def compressor(compression: str) -> Callable[[memoryview], bytes] | None:
    """Return a function that compresses a body, or None if `compression` is "none".

    Only one thread at a time may call it.

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
    """Return the body of `body_bytes` bytes that was compressed to `stored`, or None if it was not.

    This uses no more memory than `body_bytes`, which the caller has checked.

    Raises:
        SpoolError: the package is missing. Nothing is lost: the frame can still be read later.
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
