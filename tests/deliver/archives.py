"""A sender and a keeper for tests, which start the keeper's rounds themselves."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import zstandard

from pixelfast.config import FileDestination
from pixelfast.deliver.archive.keeper import ArchiveKeeper
from pixelfast.deliver.destinations.file import FileSender
from pixelfast.deliver.outcomes import Accepted
from pixelfast.deliver.timing import DeliveryClock
from tests.deliver.spools import batch_of, event

__all__ = ["Archive", "numbers_in", "read"]


class Archive:
    """An archive with one event per file, unless `rotate_bytes` is larger."""

    def __init__(
        self,
        folder: Path,
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        rotate_bytes: int = 1,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.keeper = ArchiveKeeper(folder, FileDestination(name="archive", **settings), clock)
        # The sender has no keeper, so the files only change in rounds of this one.
        self.sender = FileSender(folder, rotate_bytes, 10**12, clock=clock)
        self.memory: dict[str, object] = {}
        self.newest = 0

    async def open(self) -> None:
        await self.sender.open(self.memory)
        self.keeper.clean_up()

    async def send(self, *numbers: int, padding: int = 0) -> None:
        outcome = await self.sender.send(batch_of([event(n, padding) for n in numbers]))
        assert isinstance(outcome, Accepted), outcome
        assert outcome.memory is not None
        self.memory = outcome.memory
        self.newest = int(str(self.memory["file"])[17:25])

    def tend(self) -> bool:
        return self.keeper.tend(self.newest)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name != ".lock")

    @property
    def suffixes(self) -> list[str]:
        return [name.partition(".")[2] for name in self.names]


def read(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(data).read()
    return data


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of all events of an archive, in the order of file names."""
    texts = [read(path) for path in sorted(folder.glob("*.ndjson*"))]
    assert all(text.endswith(b"\n") for text in texts if text), "whole lines only"
    return [json.loads(line)["n"] for text in texts for line in text.splitlines()]
