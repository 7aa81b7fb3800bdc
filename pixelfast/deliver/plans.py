"""What is going to be sent, decided and on the disk before it is sent for the first time."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from zlib import crc32

import msgspec

from pixelfast.deliver.batches import Batch, Cut, Pieces, Range, Run, read_ranges
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
    whole: int = 0
    letters: list[int] | None = None
    attempts: int = 0

    @classmethod
    def of_cut(cls, cut: Cut, sequence: int, selection: Selection) -> tuple[Plan, Batch]:
        """Plan what was cut."""
        identity = uuid.uuid4().hex
        batch = cut.batch()
        plan = cls(
            id=identity,
            root=identity,
            sequence=sequence,
            events=cut.events,
            size_bytes=cut.size_bytes,
            checksum=crc32(batch.body),
            oldest_ms=cut.oldest_ms,
            ranges=cut.ranges,
            selection=selection,
        )
        return plan, plan.batch(batch.body, batch.runs)

    @classmethod
    def of_letters(cls, letters: dict[int, bytes], sequence: int) -> tuple[Plan, Batch]:
        """Plan dead letters, their events by their ids, for another try."""
        identity = uuid.uuid4().hex
        body = b"".join(event + b"\n" for event in letters.values())
        plan = cls(
            id=identity,
            root=identity,
            sequence=sequence,
            events=len(letters),
            size_bytes=len(body),
            checksum=crc32(body),
            oldest_ms=0,
            letters=list(letters),
        )
        return plan, plan.batch(body)

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

    def parts(self, batch: Batch, groups: Iterable[Sequence[int]]) -> list[tuple[Plan, Batch]]:
        """Plans of some of this one's events each, by their places in `batch`."""
        lines, sources = batch.lines(), batch.sources()
        whole = self.numbers or range(self.events)
        return [self._part(places, lines, sources, whole) for places in groups]

    def _part(
        self,
        places: Sequence[int],
        lines: list[bytes],
        sources: list[str],
        whole: Sequence[int],
    ) -> tuple[Plan, Batch]:
        some = _some(lines, sources, places)
        numbers = [whole[place] for place in places]
        part = msgspec.structs.replace(
            self,
            id=f"{self.root}-{crc32(repr(numbers).encode()):08x}",
            numbers=numbers,
            whole=self.whole or self.events,
            letters=None if self.letters is None else [self.letters[place] for place in places],
            events=len(places),
            size_bytes=some.size_bytes,
            checksum=crc32(some.body),
        )
        return part, part.batch(some.body, some.runs)

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
        found = _some(lines, sources, places)
        is_same = crc32(found.body) == self.checksum
        return self.batch(found.body, found.runs) if is_same else None

    def remake(self, data: DataDir) -> tuple[Plan, Batch] | None:
        """A new plan of what the spool still holds of this one; None where that is nothing.

        Blocks for the disk.
        """
        found = read_ranges(data, self.ranges, self.selection)
        if not found.events:
            return None
        identity = uuid.uuid4().hex
        plan = msgspec.structs.replace(
            self,
            id=identity,
            root=identity,
            numbers=None,
            whole=0,
            events=found.events,
            size_bytes=found.size_bytes,
            checksum=crc32(found.body),
        )
        return plan, plan.batch(found.body, found.runs)


def _some(lines: list[bytes], sources: list[str], places: Sequence[int]) -> Batch:
    """A batch of some of the events of another one, by their places in it."""
    pieces = Pieces()
    for place in places:
        pieces.add(sources[place], lines[place] + b"\n", 1)
    body, runs = Pieces.joined([pieces])
    return Batch(body=body, events=len(places), runs=runs)
