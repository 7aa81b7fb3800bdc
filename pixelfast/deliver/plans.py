"""What is going to be sent, decided and on the disk before it is sent for the first time."""

from __future__ import annotations

from zlib import crc32

import msgspec

from pixelfast.deliver.batches import Batch, Range, Run, read_ranges, some_events
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir

__all__ = ["Plan"]


class Plan(msgspec.Struct, kw_only=True):
    """A batch before it is accepted: its id, and how to make exactly its bytes again.

    After a crash the same batch goes out again, byte for byte under the same id, so a destination
    that has it can tell (ClickHouse drops an insert only where all of it is the same).

    Attributes:
        sequence: its place among all plans of the destination.
        root: the id of the batch that it is, or is a part of.
        numbers: of a part, which events of that batch: their places, counted from 0.
        whole: of a part, how many events that batch has.
        dead_letters: of dead letters that are sent again, their ids; there are no ranges then.
        checksum: crc32 of its events as NDJSON.
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
        """Parts of a batch come where the batch was."""
        return self.sequence, self.numbers[0] if self.numbers else 0

    def batch(self, body: bytes, runs: tuple[Run, ...] = ()) -> Batch:
        """The batch to send, of its events as NDJSON and their sources."""
        return Batch(
            id=self.id,
            body=body,
            events=self.events,
            runs=runs,
            numbers=self.numbers,
            root=self.root,
        )

    def read_back(self, data: DataDir) -> Batch | None:
        """Make the batch again from the spool; None where it is not what it was.

        Blocks for the disk.
        """
        if self.numbers is not None:
            return self.part_of(*self.whole_events(data))
        found = read_ranges(data, self.ranges, self.selection)
        is_same = crc32(found.body) == self.checksum
        return self.batch(found.body, found.runs) if is_same else None

    def whole_events(self, data: DataDir) -> tuple[list[bytes], list[str]]:
        """The events of the batch that it is, or is a part of, and their sources.

        Blocks for the disk.
        """
        found = read_ranges(data, self.ranges, self.selection)
        return found.lines(), found.sources()

    def part_of(self, lines: list[bytes], sources: list[str]) -> Batch | None:
        """As `read_back`, of the events of the whole batch and their sources."""
        places = [n for n in self.numbers or () if n < len(sources)]
        found = some_events(lines, sources, places)
        is_same = crc32(found.body) == self.checksum
        return self.batch(found.body, found.runs) if is_same else None
