"""The events of a batch by source and hour, and the names of their objects."""

from __future__ import annotations

import functools
import re
from itertools import islice
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from pixelfast.deliver.batches import Batch, Run

__all__ = ["Partition", "Piece", "partitions"]

_LINE_FEED = re.compile(b"\n")
_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d", re.ASCII)
_NO_HOUR = "1970-01-01T00"  # of an event without a valid `receivedAt`, which no collector writes

Piece = memoryview  # consecutive events of one partition, each with its line feed


class _Received(msgspec.Struct, gc=False, rename="camel"):
    received_at: str = ""


_decode = msgspec.json.Decoder(_Received).decode


class Partition(NamedTuple):
    """The events of one source that were received in one hour (UTC).

    >>> Partition("web", "2026-11-27T08").object_name("1f0c", ".ndjson.gz")
    'source=web/date=2026-11-27/hour=08/1f0c.ndjson.gz'
    """

    source: str
    hour: str

    def object_name(self, batch: str, suffix: str) -> str:
        """Return the name of the object with the events of this partition in a batch.

        It depends on nothing else, so that an attempt overwrites the objects of the previous one.
        """
        # The settings allow only safe characters, but old sources are still in the spool.
        source = quote(self.source, safe="").replace(".", "%2E") or "%00"
        date, hour = self.hour.split("T")
        return f"source={source}/date={date}/hour={hour}/{batch}{suffix}"


def partitions(batch: Batch) -> dict[Partition, list[Piece]]:
    """Return the events of a batch by partition, in their order, without copying them."""
    found: dict[Partition, list[Piece]] = {}
    body = memoryview(batch.body)
    line_feeds = _LINE_FEED.finditer(batch.body)
    end = 0
    for source, events in batch.runs or (Run("", batch.events),):
        first, hour = end, ""  # of the consecutive events of one partition
        for line_feed in islice(line_feeds, events):
            start, end = end, line_feed.end()
            own_hour = _hour_of(body[start:end])
            if own_hour != hour:
                if start > first:
                    found.setdefault(Partition(source, hour), []).append(body[first:start])
                first, hour = start, own_hour
        if end > first:
            found.setdefault(Partition(source, hour), []).append(body[first:end])
    return found


def _hour_of(event: Piece) -> str:
    """Return the hour in which an event was received, as in 2026-11-27T08."""
    try:
        return _valid_hour(_decode(event).received_at[:13])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NO_HOUR


@functools.lru_cache(maxsize=256)
def _valid_hour(hour: str) -> str:
    return hour if _HOUR.fullmatch(hour) else _NO_HOUR
