"""Real segments for delivery to read, written without a collector."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

from pixelfast.deliver.batches import Batch, Cut, Limits
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Position, SlotFiles
from pixelfast.spool.batch import Batch as Commit

NO_LIMITS = Limits(max_events=10**9, max_bytes=10**12, max_age_s=0.0)


def event(number: int, padding: int = 0) -> bytes:
    """One event's JSON; different for each number."""
    return json.dumps({"n": number, "p": "x" * padding}, separators=(",", ":")).encode()


def ndjson(events: Iterable[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in events)


def batch_of(events: Iterable[bytes], identity: str = "batch") -> Batch:
    """A batch to send."""
    body = ndjson(events)
    return Batch(id=identity, body=body, events=body.count(b"\n"))


def numbers_in(folder: Path) -> list[int]:
    """The numbers of the events in all files of a folder, in the order of the files' names."""
    names = sorted(folder.glob("*.ndjson")) if folder.exists() else []
    texts = [path.read_bytes() for path in names]
    assert all(text.endswith(b"\n") for text in texts if text), "whole lines only"
    return [json.loads(line)["n"] for text in texts for line in text.split(b"\n")[:-1]]


def files_in(folder: Path) -> list[Path]:
    """What a folder holds beside its lock, in the order of the names."""
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


def _unsynced() -> AbstractContextManager[object]:
    """What a test feeds need not survive a power cut; a sync takes most of the time here."""
    return mock.patch.object(os, "fsync", return_value=None)


def open_data(path: Path | str) -> DataDir:
    """A data directory, made where it is missing."""
    with _unsynced():
        return DataDir.open(path)


class Feed:
    """Writes frames into one slot, as its collector does: seal, write, next segment when full."""

    def __init__(self, data: DataDir, slot: int = 0, *, segment_bytes: int = 64 * 2**10) -> None:
        self.data = data
        self.slot = slot
        with _unsynced():
            self._files = SlotFiles(data, slot, segment_bytes)
            self._segment = self._files.create()
        self._next_number = self._files.next_number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def write(self, *events: bytes, source: str = "web", received_ms: int = 0) -> None:
        """One frame."""
        self.commit([(source, each) for each in events], received_ms=received_ms)

    def commit(self, events: list[tuple[str, bytes]], *, received_ms: int = 0) -> None:
        """One group commit: a frame for each source, in the order of their first events."""
        names = list(dict.fromkeys(source for source, _ in events))
        commit = Commit()
        received_ms = received_ms or time.time_ns() // 1_000_000
        for source, each in events:
            commit.add(names.index(source), each, received_ms)
        encoded = [name.encode("ascii") for name in names]
        if self._segment.offset + commit.sealed_bytes(encoded) > self._files.segment_bytes:
            self.next_segment()
        place = self._segment.id, self._segment.offset
        length = commit.seal(encoded, *place, self._next_number)
        assert os.pwrite(self._segment.fd, commit.sealed(), self._segment.offset) == length
        self._next_number += len(events)
        self._segment.offset += length

    @property
    def position(self) -> Position:
        """Behind all that is written."""
        return Position(self._segment.id.number, self._segment.offset)

    def skip_numbers(self, events: int) -> None:
        """Leave numbers out, as after a refused batch; or use some again, as after a power cut."""
        self._next_number += events

    def next_segment(self) -> None:
        with _unsynced():
            self._files.retire(self._segment, is_sound=True)
            self._segment = self._files.create()

    def close(self) -> None:
        with _unsynced():
            self._files.retire(self._segment, is_sound=True)
        self._files.close()


def taking(sources: frozenset[str] | None) -> Selection:
    """What a destination of these sources takes; of all where None."""
    if sources is None:
        return Selection()
    return Selection(
        tuple(each for each in ("web", "web2", "mail", "app", "a", "b", "c") if each not in sources)
    )


def cut_all(
    data: DataDir,
    limits: Limits,
    cursors: dict[int, Position] | None = None,
    sources: frozenset[str] | None = None,
) -> list[Cut]:
    """All batches that are there to cut, the last one as if it were old enough."""
    cutter = Cutter(data, cursors or {}, limits, taking(sources))
    try:
        batches: list[Cut] = []
        while (is_full := cutter.cut()) or cutter.has_more or cutter.has_moved():
            assert cutter.has_moved() or not is_full, "a batch is full of nothing"
            if is_full or not cutter.has_more:  # else only the turn has ended
                batches.append(cutter.close_batch())
        return batches
    finally:
        cutter.close()


def whole(cut: Cut) -> Batch:
    """What is sent of a cut."""
    return cut.batch()


def lines_of(batches: Iterable[Cut]) -> list[bytes]:
    return [line for cut in batches if cut.events for line in whole(cut).lines()]


def as_json(cut: Cut) -> Any:
    return json.loads(whole(cut).joined())
