"""Events as Parquet: columns for the fields that most queries use, and the complete event as JSON.

If a field of an event does not have the type of its column, or is a time that the column cannot
hold, the column is NULL. Nothing is lost, because the column `json` contains the event as it was
stored.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import cast

import msgspec
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from pixelfast.deliver.objects.partitions import Piece

__all__ = ["SCHEMA", "parquet_encoder"]

_LINE_FEED = re.compile(b"\n")
_COMPRESSIONS = {"none": "uncompressed", "gzip": "gzip(6)", "zstd": "zstd(3)"}
_ROWS_AT_ONCE = 1024  # more would hold the GIL for several ms
_ROW_GROUP_ROWS = 32_768  # which are in memory twice until they are written
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_STRING = DataType.string()
_TIME = DataType.timestamp("ms", tz="UTC")
_INTEGER = DataType.int64()


class _Row(msgspec.Struct, gc=False, rename="camel"):
    """The fields of an event that have columns, which are named like the attributes."""

    message_id: str | None = None
    received_at: str | None = None
    timestamp: str | None = None
    type: str | None = None
    event: str | None = None
    name: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    request_ip: str | None = msgspec.field(default=None, name="request_ip")


_TIMES = frozenset({"received_at", "timestamp"})
_NAMES = _Row.__struct_fields__
_KEYS = dict(zip(_NAMES, _Row.__struct_encode_fields__, strict=True))
_JSON = "json"
SCHEMA = Schema(
    [Field(name, _TIME if name in _TIMES else _STRING, nullable=True) for name in _NAMES]
    + [Field(_JSON, _STRING, nullable=False)]
)
# A dictionary of values that are nearly all different only costs time.
_DICTIONARIES: dict[str | Sequence[str], bool] = {"message_id": False, _JSON: False}
_decode = msgspec.json.Decoder(_Row).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str | None).decode


def parquet_encoder(compression: str) -> Callable[[Sequence[Piece]], bytes]:
    """Return a function that returns events as a Parquet file."""

    def encode(pieces: Sequence[Piece]) -> bytes:
        file = io.BytesIO()
        # The writer takes batches from the generator. With a whole table, it would not release the
        # GIL before it has finished.
        batches = cast(Sequence[RecordBatch], _record_batches(pieces))
        write_parquet(
            RecordBatchReader.from_batches(SCHEMA, batches),
            file,
            compression=_COMPRESSIONS[compression],
            column_dictionary_enabled=_DICTIONARIES,
            max_row_group_size=_ROW_GROUP_ROWS,
        )
        return file.getvalue()

    return encode


def _lines(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Yield each event without its line feed."""
    for piece in pieces:
        start = 0
        for line_feed in _LINE_FEED.finditer(piece):
            yield bytes(piece[start : line_feed.start()])
            start = line_feed.end()


def _record_batches(pieces: Sequence[Piece]) -> Iterator[RecordBatch]:
    lines = _lines(pieces)
    while rows := list(islice(lines, _ROWS_AT_ONCE)):
        yield _record_batch(rows)


def _record_batch(lines: list[bytes]) -> RecordBatch:
    rows = [_row(line) for line in lines]
    columns = []
    for name in _NAMES:
        values = [getattr(row, name) for row in rows]
        if name in _TIMES:
            columns.append(Array([_milliseconds(each) for each in values], _INTEGER).cast(_TIME))
        else:
            columns.append(Array(values, _STRING))
    columns.append(Array([line.decode("utf-8", "replace") for line in lines], _STRING))
    return RecordBatch.from_arrays(columns, schema=SCHEMA)


def _row(line: bytes) -> _Row:
    """Return the fields of an event that fit their columns."""
    try:
        return _decode(line)
    except msgspec.ValidationError:
        fields = _decode_fields(line)
        return _Row(**{name: _string(fields.get(key)) for name, key in _KEYS.items()})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Row()


def _string(value: msgspec.Raw | None) -> str | None:
    try:
        return None if value is None else _decode_string(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@functools.lru_cache(maxsize=4096)
def _milliseconds(time: str | None) -> int | None:
    """Return a time in milliseconds since 1970, or None if it is not a time.

    >>> _milliseconds("2026-11-27T08:00:00.123Z"), _milliseconds("yesterday")
    (1795766400123, None)
    """
    if time is None:
        return None
    try:
        return (datetime.fromisoformat(time) - _EPOCH) // _MILLISECOND
    except (ValueError, TypeError, OverflowError):  # a TypeError if it has no offset
        return None
