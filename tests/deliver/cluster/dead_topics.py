"""The topic of dead letters in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from pixelfast.deliver.bundles import DeadLetter
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.dead_records import DeadRecord, parse_record

__all__ = ["DeadTopic"]


class DeadTopic:
    """A compacted topic, and its index.

    Attributes:
        messages: all messages, also those that compaction would delete.
        is_late: whether the index does not get new messages yet.
    """

    def __init__(self, on_write: Callable[[], None] = lambda: None) -> None:
        self.index = DeadLetterIndex(structlog.get_logger("deliver"))
        self.index.is_complete = True
        self.messages: list[tuple[bytes, bytes | None]] = []
        self.is_late = False
        self._on_write = on_write
        self._added = 0

    def write(self, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        self._on_write()
        self.messages += messages
        self.catch_up()
        self._on_write()

    def catch_up(self) -> None:
        """Add new messages to the index."""
        if not self.is_late:
            for offset in range(self._added, len(self.messages)):
                self.index.add(offset, *self.messages[offset])
            self._added = len(self.messages)

    def read_at(self, offsets: Iterable[int]) -> list[DeadLetter]:
        found = [(each, *self.messages[each]) for each in sorted(offsets)]
        return [parse_record(key, value, n).letter for n, key, value in found if value]

    def read(self, destination: str | None = None) -> list[DeadRecord]:
        last = {key: (value, n) for n, (key, value) in enumerate(self.messages)}
        records = [parse_record(key, value, n) for key, (value, n) in last.items() if value]
        return sorted(each for each in records if destination in (None, each.destination))

    @property
    def letters(self) -> list[DeadLetter]:
        return [each.letter for each in self.read()]
