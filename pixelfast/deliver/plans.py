"""What is going to be sent, decided and on the disk before it is sent for the first time."""

from __future__ import annotations

import uuid
from zlib import crc32

import msgspec

from pixelfast.deliver.batches import Batch, Cut, Range, read_ranges
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
        letters: of dead letters that are sent again, their ids; there are no ranges then.
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
    letters: list[int] | None = None
    attempts: int = 0

    @classmethod
    def of_cut(cls, cut: Cut, sequence: int, selection: Selection) -> tuple[Plan, Batch]:
        """Plan what was cut."""
        identity = uuid.uuid4().hex
        pieces = cut.body
        plan = cls(
            id=identity,
            root=identity,
            sequence=sequence,
            events=cut.events,
            size_bytes=cut.size_bytes,
            checksum=_checksum(pieces),
            oldest_ms=cut.oldest_ms,
            ranges=cut.ranges,
            selection=selection,
        )
        return plan, plan.batch(pieces)

    @classmethod
    def of_letters(cls, letters: dict[int, bytes], sequence: int) -> tuple[Plan, Batch]:
        """Plan dead letters, their events by their ids, for another try."""
        identity = uuid.uuid4().hex
        pieces = [memoryview(event + b"\n") for event in letters.values()]
        plan = cls(
            id=identity,
            root=identity,
            sequence=sequence,
            events=len(pieces),
            size_bytes=sum(map(len, pieces)),
            checksum=_checksum(pieces),
            oldest_ms=0,
            letters=list(letters),
        )
        return plan, plan.batch(pieces)

    @property
    def order(self) -> tuple[int, int]:
        """Parts of a batch come where the batch was."""
        return self.sequence, self.numbers[0] if self.numbers else 0

    def batch(self, pieces: list[memoryview]) -> Batch:
        """The batch to send, of its bytes."""
        return Batch(
            id=self.id,
            pieces=pieces,
            events=self.events,
            size_bytes=self.size_bytes,
            numbers=self.numbers,
            root=self.root,
        )

    def part(self, batch: Batch, places: list[int]) -> tuple[Plan, Batch]:
        """A plan of some of this one's events, by their places in `batch`."""
        lines = batch.lines()
        pieces = [memoryview(lines[place] + b"\n") for place in places]
        whole = self.numbers or range(self.events)
        numbers = [whole[place] for place in places]
        part = msgspec.structs.replace(
            self,
            id=f"{self.root}-{crc32(repr(numbers).encode()):08x}",
            numbers=numbers,
            letters=None if self.letters is None else [self.letters[place] for place in places],
            events=len(places),
            size_bytes=sum(map(len, pieces)),
            checksum=_checksum(pieces),
        )
        return part, part.batch(pieces)

    def read_back(self, data: DataDir) -> Batch | None:
        """Make the batch again from the spool; None where it is not what it was.

        Blocks for the disk.
        """
        pieces = read_ranges(data, self.ranges, self.selection)
        if self.numbers is not None:
            lines = b"".join(pieces).split(b"\n")[:-1]
            pieces = [memoryview(lines[n] + b"\n") for n in self.numbers if n < len(lines)]
        return self.batch(pieces) if _checksum(pieces) == self.checksum else None

    def remake(self, data: DataDir) -> tuple[Plan, Batch] | None:
        """A new plan of what the spool still holds of this one; None where that is nothing.

        Blocks for the disk.
        """
        pieces = read_ranges(data, self.ranges, self.selection)
        body = b"".join(pieces)
        if not body:
            return None
        identity = uuid.uuid4().hex
        plan = msgspec.structs.replace(
            self,
            id=identity,
            root=identity,
            numbers=None,
            events=body.count(b"\n"),
            size_bytes=len(body),
            checksum=_checksum(pieces),
        )
        return plan, plan.batch(pieces)


def _checksum(pieces: list[memoryview]) -> int:
    checksum = 0
    for piece in pieces:
        checksum = crc32(piece, checksum)
    return checksum
