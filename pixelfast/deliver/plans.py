"""The plan of a batch, stored on the disk before the batch is first sent."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from zlib_ng.zlib_ng import crc32

from pixelfast.deliver.batches import Batch, Range, Run, read_ranges, some_events
from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.selection import Selection
from pixelfast.spool import Position

__all__ = ["Plan"]


class Plan(msgspec.Struct, kw_only=True):
    """The id of a batch that is not settled yet, and how to make its exact bytes again.

    After a crash the same bytes are repeated under the same id, so that a destination can
    recognize the batch (ClickHouse drops an insert only if all of it is the same).

    Attributes:
        sequence: the position among all plans of the destination.
        root: the id of the whole batch; a part of it has another `id`.
        numbers: for a part of a batch, the positions of its events in the whole, counted from 0.
        whole: for a part of a batch, the number of events in the whole.
        dead_letters: for replayed dead letters, their ids; `ranges` is then empty.
        checksum: the CRC-32 of the events as NDJSON.
    """

    id: str
    root: str
    sequence: int
    events: int
    size_bytes: int
    checksum: int
    oldest_ms: int
    ranges: list[Range] = []
    selection: Selection = Selection()
    numbers: list[int] | None = None
    whole: int = 0
    dead_letters: list[int] | None = msgspec.field(default=None, name="letters")
    attempts: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """The sort key; parts of a batch take the position of the batch."""
        return self.sequence, self.numbers[0] if self.numbers else 0

    def begins_before(self, positions: Mapping[int, Position]) -> bool:
        """Whether the batch begins before the given position of one of its slots."""
        return any(each.start < positions.get(each.slot, each.start) for each in self.ranges)

    def batch(self, body: bytes, runs: tuple[Run, ...] = ()) -> Batch:
        """Return the batch to send, made of its events as NDJSON and their sources."""
        return Batch(
            id=self.id,
            body=body,
            events=self.events,
            runs=runs,
            numbers=self.numbers,
            root=self.root,
        )

    def read_back(self, log: EventLog) -> Batch | None:
        """Read the batch from the log again; return None if it has changed.

        Blocks.
        """
        if self.numbers is not None:
            return self.part_of(*self.whole_events(log))
        found = read_ranges(log, self.ranges, self.selection)
        is_same = crc32(found.body) == self.checksum
        return self.batch(found.body, found.runs) if is_same else None

    def whole_events(self, log: EventLog) -> tuple[list[bytes], list[str]]:
        """Return the events of the whole batch, and their sources.

        Blocks.
        """
        found = read_ranges(log, self.ranges, self.selection)
        return found.lines(), found.sources()

    def part_of(self, lines: list[bytes], sources: list[str]) -> Batch | None:
        """Make this part from the events of the whole batch; return None if it has changed."""
        places = [n for n in self.numbers or () if n < len(sources)]
        found = some_events(lines, sources, places)
        is_same = crc32(found.body) == self.checksum
        return self.batch(found.body, found.runs) if is_same else None
