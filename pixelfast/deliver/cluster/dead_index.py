"""Where the dead letters of a cluster are in their topic, and how many there are."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from pixelfast.deliver.cluster.dead_records import DeadRecord, destination_of, parse_record
from pixelfast.deliver.dead import DeadLetterLimits, SourceDeadLetters

__all__ = ["DeadEntry", "DeadLetterIndex"]


class DeadEntry(NamedTuple):
    """A dead letter in the topic. Entries sort by age, the oldest first.

    Attributes:
        id: its id, which no later message changes.
        offset: of its last message.
        size_bytes: of that message.
    """

    died_ms: int
    id: int
    key: bytes
    source: str
    offset: int
    size_bytes: int


class DeadLetterIndex:
    """Follow the topic of dead letters. It uses about 400 bytes of memory per dead letter.

    A thread adds messages, and other threads read.

    Attributes:
        is_complete: whether all messages were read once.
    """

    def __init__(self, log: Any) -> None:
        self.is_complete = False
        self._log = log
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, dict[bytes, DeadEntry]]] = {}  # by destination, source
        self._sources: dict[bytes, str] = {}  # by key
        self._marked: dict[str, dict[bytes, DeadEntry]] = {}  # to be replayed, by destination
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._next_offset = 0
        self._is_told = False

    def add(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Add a message of the topic."""
        with self._lock:
            if offset < self._next_offset:
                self._clear()  # the topic was deleted and created again
            self._next_offset = offset + 1
            if not value:
                self._remove(key)
                return
            try:
                record = parse_record(key, value, offset)
            except ValueError as error:
                if not self._is_told:
                    self._is_told = True
                    self._log.warning("dead_letter_invalid", offset=offset, error=str(error))
                return
            self._replace(key, record, len(key) + len(value))

    def _clear(self) -> None:
        for each in (self._entries, self._sources, self._marked, self._bytes):
            each.clear()

    def _remove(self, key: bytes) -> None:
        source = self._sources.pop(key, None)
        if source is None:
            return
        name = destination_of(key)
        entry = self._entries[name][source].pop(key)
        self._bytes[name, source] -= entry.size_bytes
        self._marked[name].pop(key, None)

    def _replace(self, key: bytes, record: DeadRecord, size_bytes: int) -> None:
        letter, name, source = record.letter, record.destination, record.letter.source
        entry = DeadEntry(letter.died_ms, letter.id, key, source, record.offset, size_bytes)
        if self._sources.get(key, source) != source:
            self._remove(key)
        entries = self._entries.setdefault(name, {}).setdefault(source, {})
        before = entries.get(key)
        entries[key] = entry  # keeps its place in the order
        self._sources[key] = source
        self._bytes[name, source] += size_bytes - (before.size_bytes if before else 0)
        marked = self._marked.setdefault(name, {})
        if letter.replay:
            marked[key] = entry
        else:
            marked.pop(key, None)

    # --- what a destination has --------------------------------------------------------------

    def size_bytes(self, destination: str) -> int:
        """Return the size of a destination's dead letters."""
        with self._lock:
            return sum(size for (name, _), size in self._bytes.items() if name == destination)

    def by_source(self, destination: str) -> dict[str, SourceDeadLetters]:
        """Return the numbers and sizes of a destination's dead letters for each source."""
        with self._lock:
            known = self._entries.get(destination, {})
            dropped = {source for name, source in self._dropped if name == destination}
            return {
                source: SourceDeadLetters(
                    len(known.get(source, {})),
                    self._bytes[destination, source],
                    self._dropped[destination, source],
                    next((each.died_ms for each in known.get(source, {}).values()), 0),
                )
                for source in sorted(known.keys() | dropped)
            }

    def marked(self, destination: str, most: int) -> list[DeadEntry]:
        """Return the first dead letters that are marked for replay, at most `most`."""
        with self._lock:
            return list(islice(self._marked.get(destination, {}).values(), most))

    def is_marked(self, destination: str, key: bytes, offset: int) -> bool:
        """Whether the message at `offset` is the last one of a dead letter, and marks it."""
        with self._lock:
            entry = self._marked.get(destination, {}).get(key)
            return entry is not None and entry.offset == offset

    def entries(self, destination: str, ids: Iterable[int]) -> list[DeadEntry]:
        """Return the dead letters of these ids that exist. Looks at all dead letters."""
        wanted = set(ids)
        with self._lock:
            return [each for each in self._oldest(destination) if each.id in wanted]

    def excess(
        self,
        destination: str,
        limits: DeadLetterLimits,
        now_ms: float,
        most: int,
        kept: Container[bytes] = (),
    ) -> list[DeadEntry]:
        """Return dead letters over the limits of age and size, at most `most`.

        Over the limit of size are the oldest of the source with the largest share, as on a single
        machine, so that a sender of bad events does not drop the dead letters of other sources.
        Those whose keys are in `kept` are not returned.
        """
        found: list[DeadEntry] = []
        with self._lock:
            known = self._entries.get(destination, {})
            excess_bytes = -limits.max_bytes
            largest: list[tuple[int, str, DeadEntry, Iterator[DeadEntry]]] = []  # a heap
            for source, entries in known.items():
                source_bytes = self._bytes[destination, source]
                excess_bytes += source_bytes
                rest = (each for each in entries.values() if each.key not in kept)
                for oldest in rest:
                    if now_ms - oldest.died_ms <= limits.max_age_s * 1000:
                        largest.append((-source_bytes, source, oldest, rest))
                        break
                    source_bytes -= oldest.size_bytes
                    excess_bytes -= oldest.size_bytes
                    found.append(oldest)
            if limits.on_full == "drop_oldest":
                over = _oldest_of_largest(largest, excess_bytes)
                found += islice(over, max(0, most - len(found)))
        return found[:most]

    def note_dropped(self, destination: str, entries: Iterable[DeadEntry]) -> None:
        """Count dead letters that were dropped because of a limit."""
        with self._lock:
            self._dropped.update((destination, each.source) for each in entries)

    def _oldest(self, destination: str) -> Iterator[DeadEntry]:
        return heapq.merge(*(each.values() for each in self._entries.get(destination, {}).values()))


def _oldest_of_largest(
    sources: list[tuple[int, str, DeadEntry, Iterator[DeadEntry]]], excess_bytes: int
) -> Iterator[DeadEntry]:
    """Yield the oldest dead letter of the source that is the largest, until `excess_bytes` are.

    A source is its negative size, its name, its oldest dead letter and the others by age.
    """
    heapq.heapify(sources)
    while excess_bytes > 0 and sources:
        size_bytes, source, oldest, rest = sources[0]
        yield oldest
        excess_bytes -= oldest.size_bytes
        following = next(rest, None)
        if following is None:
            heapq.heappop(sources)
        else:
            heapq.heapreplace(sources, (size_bytes + oldest.size_bytes, source, following, rest))
