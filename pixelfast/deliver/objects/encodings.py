"""The contents of objects: newline-delimited JSON or Parquet, compressed or not.

The same events always result in the same bytes, so that an attempt overwrites an object with the
same contents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from zlib_ng import zlib_ng

from pixelfast.deliver.archive.compression import check_compression
from pixelfast.deliver.archive.names import SUFFIXES
from pixelfast.deliver.bodies.lines import escape_line_ends
from pixelfast.deliver.objects.partitions import Piece
from pixelfast.errors import DestinationError

__all__ = ["Encoding", "encoding_of"]

_CHUNK_BYTES = 2**19
_GZIP = 31  # zlib's wbits: deflate with gzip's header, which has no time, and its checksum
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_PARQUET_TYPE = "application/vnd.apache.parquet"
_MISSING = (
    'format = "parquet" requires the packages arro3-core and arro3-io: pip install'
    " 'pixelfast[parquet]'"
)
_CONTENT_TYPES = {
    "none": "application/x-ndjson",
    "gzip": "application/gzip",
    "zstd": "application/zstd",
}


class Encoding(NamedTuple):
    """How events become the contents of an object.

    Attributes:
        suffix: the end of the object's name.
        content_type: the media type of the object.
        encode: returns the contents of an object; takes some µs per event.
    """

    suffix: str
    content_type: str
    encode: Callable[[Sequence[Piece]], bytes]


def encoding_of(form: str, compression: str) -> Encoding:
    """Return the encoding for the settings `format` and `compression`.

    Raises:
        DestinationError: a package that it requires is not installed.
    """
    if form == "parquet":
        try:
            from pixelfast.deliver.objects.parquet import parquet_encoder
        except ModuleNotFoundError:
            raise DestinationError(_MISSING) from None
        return Encoding(".parquet", _PARQUET_TYPE, parquet_encoder(compression))
    check_compression(compression)
    suffix = f".ndjson{SUFFIXES[compression]}"
    return Encoding(suffix, _CONTENT_TYPES[compression], _NDJSON_ENCODERS[compression])


def _ndjson(pieces: Sequence[Piece]) -> bytes:
    return b"".join(_chunks(pieces))


def _gzip(pieces: Sequence[Piece]) -> bytes:
    return _compressed(zlib_ng.compressobj(_GZIP_LEVEL, zlib_ng.DEFLATED, _GZIP), pieces)


def _zstd(pieces: Sequence[Piece]) -> bytes:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
    return _compressed(compressor.compressobj(), pieces)


_NDJSON_ENCODERS = {"none": _ndjson, "gzip": _gzip, "zstd": _zstd}


def _compressed(stream: Any, pieces: Sequence[Piece]) -> bytes:
    packed = [stream.compress(chunk) for chunk in _chunks(pieces)]
    return b"".join((*packed, stream.flush()))


def _chunks(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Yield the events in whole lines; a call with more bytes would hold the GIL for too long."""
    for piece in pieces:
        start = 0
        while start < len(piece):
            chunk = bytes(piece[start : start + _CHUNK_BYTES])
            if start + len(chunk) < len(piece):
                chunk = chunk[: chunk.rfind(b"\n") + 1] or bytes(piece[start:])
            yield escape_line_ends(chunk)
            start += len(chunk)
