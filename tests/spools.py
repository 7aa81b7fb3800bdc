"""Write real segments without a collector, frame by frame or in the way of a collector."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock

from pixelfast.spool import DataDir, Position, SlotFiles
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SegmentId, segment_name
from pixelfast.spool.frames import FRAME_END_BYTES

SEGMENT_BYTES = 4096


def seal(
    events: Iterable[tuple[int, bytes]],
    names: list[bytes],
    segment: SegmentId,
    offset: int,
    received_ms: int = 0,
    first_number: int = 0,
) -> bytes:
    """Return the frames of one commit, as the spool writer writes them."""
    batch = CommitBatch()
    for source, event in events:
        batch.add(source, event, received_ms)
    batch.seal(names, segment, offset, first_number)
    return batch.sealed()


class Slot:
    """One slot in real files, written frame by frame."""

    def __init__(self, data: DataDir, number: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.data = data
        self.number = number
        self.files = SlotFiles(data, number, segment_bytes)
        self.segment = self.files.create()
        self.next_number = self.files.next_number

    @property
    def position(self) -> Position:
        """The position after everything written."""
        return Position(self.segment.id.number, self.segment.offset)

    def image(self, *events: bytes, source: str = "web", received_ms: int = 0) -> bytes:
        """Return the frame of a commit at the current position."""
        return self._image([(source, event) for event in events], received_ms)

    def put(self, image: bytes, start: int = 0, stop: int | None = None) -> None:
        """Write a part of an image at its position without advancing the offset."""
        os.pwrite(self.segment.fd, image[start:stop], self.segment.offset + start)

    def write(self, *events: bytes, source: str = "web", received_ms: int = 0) -> Position:
        """Write a frame and return its position."""
        return self.commit([(source, event) for event in events], received_ms=received_ms)

    def commit(self, events: list[tuple[str, bytes]], *, received_ms: int = 0) -> Position:
        """Write one group commit: a frame for each source, in the order of their first events."""
        image, start = self._image(events, received_ms), self.position
        room = self.files.segment_bytes - self.segment.offset - len(image)
        self.put(image + bytes(max(0, min(FRAME_END_BYTES, room))))
        self.segment.offset += len(image)
        self.next_number += len(events)
        return start

    def roll(self, *, is_sound: bool = True) -> None:
        """Continue in a new segment; after a crash the old one is not sound."""
        if is_sound:
            self.files.retire(self.segment, is_sound=True)
        else:
            os.close(self.segment.fd)
        self.segment = self.files.create()

    def path(self, segment: int = 1) -> Path:
        return self.data.slot_dir(self.number) / segment_name(segment)

    def close(self) -> None:
        os.close(self.segment.fd)
        self.files.close()

    def _image(self, events: list[tuple[str, bytes]], received_ms: int) -> bytes:
        names = list(dict.fromkeys(source for source, _ in events))
        pairs = [(names.index(source), event) for source, event in events]
        encoded = [name.encode("ascii") for name in names]
        place = self.segment.id, self.segment.offset
        return seal(pairs, encoded, *place, received_ms, self.next_number)


def _unsynced() -> AbstractContextManager[object]:
    """Skip fsync, which takes most of the time: test data need not survive a power cut."""
    return mock.patch.object(os, "fsync", return_value=None)


def open_data(path: Path | str) -> DataDir:
    """Return a data directory; create it if it is missing."""
    with _unsynced():
        return DataDir.open(path)


class Feed(Slot):
    """A slot written as by its collector: events are received now, and full segments are rolled."""

    def __init__(self, data: DataDir, slot: int = 0, *, segment_bytes: int = 64 * 2**10) -> None:
        with _unsynced():
            super().__init__(data, slot, segment_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def commit(self, events: list[tuple[str, bytes]], *, received_ms: int = 0) -> Position:
        """Write one group commit like `Slot.commit`; the default for `received_ms` is now."""
        received_ms = received_ms or time.time_ns() // 1_000_000
        space = self.files.segment_bytes - self.segment.offset
        if len(self._image(events, received_ms)) > space:
            self.roll()
        return super().commit(events, received_ms=received_ms)

    def skip_numbers(self, events: int) -> None:
        """Skip numbers, as after a rejected batch, or reuse some, as after a power cut."""
        self.next_number += events

    def roll(self, *, is_sound: bool = True) -> None:
        with _unsynced():
            super().roll(is_sound=is_sound)

    def close(self) -> None:
        with _unsynced():
            self.files.retire(self.segment, is_sound=True)
        self.files.close()
