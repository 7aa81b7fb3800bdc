"""The dead letters of a destination in a cluster, for the runner of one partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.bundles import Bundle, DeadLetter, merged
from pixelfast.deliver.cluster.dead_index import DeadEntry, DeadLetterIndex
from pixelfast.deliver.cluster.dead_records import message_of
from pixelfast.deliver.dead import DeadLetterLimits, SourceDeadLetters
from pixelfast.deliver.dead_keeper import NearlyFullLog
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["DeadLetterWriter", "DeadTopic"]

_BUNDLE_BYTES = 2**20
_MAX_DROPPED = 10_000  # in one step


class DeadTopic(Protocol):
    """The topic of dead letters. Every method blocks."""

    def write(self, messages: Iterable[tuple[bytes, bytes | None]], /) -> None: ...
    def read_at(self, offsets: Iterable[int], /) -> list[DeadLetter]: ...


class DeadLetterWriter:
    """Write dead letters before their batches are settled, and replay those that are marked.

    One runner of each destination keeps its dead letters: it enforces their limits and replays
    them. A replay is not recorded before it has ended, so another owner may begin it again. A dead
    letter is dropped only after it was delivered.

    Attributes:
        max_bytes: the maximum size of the destination's dead letters.
    """

    def __init__(
        self,
        topic: DeadTopic,
        index: DeadLetterIndex,
        destination: str,
        limits: DeadLetterLimits,
        log: Any,
        clock: DeliveryClock,
        *,
        is_keeper: bool,
    ) -> None:
        self.max_bytes = limits.max_bytes
        self._topic = topic
        self._index = index
        self._destination = destination
        self._limits = limits
        self._log = log
        self._clock = clock
        self._is_keeper = is_keeper
        self._nearly_full = NearlyFullLog(limits, log)
        self._taken: dict[bytes, int] = {}  # offsets of dead letters being replayed, by key
        self._offsets: dict[int, DeadEntry] = {}  # the same, by id

    @property
    def size_bytes(self) -> int:
        """The size of the destination's dead letters."""
        return self._index.size_bytes(self._destination)

    @property
    def by_source(self) -> dict[str, SourceDeadLetters]:
        """The numbers and sizes for each source, which only the keeper reports."""
        return self._index.by_source(self._destination) if self._is_keeper else {}

    @property
    def has_any(self) -> bool:
        """Whether dead letters may have to be replayed or dropped."""
        return self._is_keeper and self._index.is_complete

    def write(
        self,
        added: list[Bundle],
        removed: list[int],
        rejected_again: dict[int, Rejected | Retry],
    ) -> None:
        """Add dead letters, drop delivered ones, and record those that failed again.

        Raises:
            DestinationError: the brokers did not store all of that.
        """
        messages: list[tuple[bytes, bytes | None]] = [*self._added(added)]
        messages += [(self._offsets[each].key, None) for each in removed if each in self._offsets]
        if rejected_again:
            messages += self._failed_again(rejected_again)
        if messages:
            self._topic.write(messages)
        for each in (*removed, *rejected_again):
            self._offsets.pop(each, None)

    def _added(self, added: list[Bundle]) -> Iterator[tuple[bytes, bytes]]:
        now_ms = round(self._clock.wall_s() * 1000)
        for bundle in merged(added):
            for row in bundle.rows(1, now_ms, _BUNDLE_BYTES):
                for each in row.to_letters():
                    yield message_of(self._destination, each._replace(id=0))

    def _failed_again(
        self, failed: dict[int, Rejected | Retry]
    ) -> Iterator[tuple[bytes, bytes | None]]:
        known = [self._offsets[each].offset for each in failed if each in self._offsets]
        for letter in self._topic.read_at(known):
            how = failed[letter.id]
            again = letter._replace(
                status=how.status,
                reason=how.reason,
                response=how.response,
                attempts=letter.attempts + 1,
                replay=0,
            )
            yield message_of(self._destination, again)

    def tend(self, limits: BatchLimits | None, *, is_due: bool) -> list[DeadLetter]:
        """Return one batch of dead letters that are marked for replay.

        If `is_due`, first drop those over the limits of age and size.
        """
        self._nearly_full.note(self.size_bytes, self.max_bytes)
        if is_due:
            self._drop_excess()
        if limits is None:
            return []
        self._taken = {
            key: offset
            for key, offset in self._taken.items()
            if self._index.is_marked(self._destination, key, offset)
        }
        chosen: list[DeadEntry] = []
        left_bytes = limits.max_bytes
        for each in self._index.marked(self._destination, limits.max_events + len(self._taken)):
            if self._taken.get(each.key) == each.offset:
                continue
            left_bytes -= each.size_bytes
            if chosen and (left_bytes < 0 or len(chosen) == limits.max_events):
                break
            chosen.append(each)
        letters = self._topic.read_at([each.offset for each in chosen])
        by_id = {each.id: each for each in chosen}
        for letter in letters:
            entry = self._offsets[letter.id] = by_id[letter.id]
            self._taken[entry.key] = entry.offset
        return letters

    def _drop_excess(self) -> None:
        now_ms, size_bytes = self._clock.wall_s() * 1000, self.size_bytes
        excess = self._index.excess(
            self._destination, self._limits, now_ms, _MAX_DROPPED, self._taken
        )
        if excess:
            self._topic.write((each.key, None) for each in excess)
            self._index.note_dropped(self._destination, excess)
            self._log.warning(
                "dead_letters_dropped",
                events=len(excess),
                bytes=size_bytes - sum(each.size_bytes for each in excess),
            )

    def resume(self, planned: list[list[int]]) -> None:
        """Do nothing: replays are not recorded."""

    def read_replayed(self, ids: list[int]) -> list[DeadLetter] | None:
        """Return dead letters that are being replayed, or None if one of them has changed."""
        entries = [self._offsets[each] for each in ids if each in self._offsets]
        letters = self._topic.read_at([each.offset for each in entries])
        by_id = {each.id: each for each in letters}
        return [by_id[each] for each in ids] if by_id.keys() >= set(ids) else None

    def existing(self, ids: list[int]) -> int:
        """Return how many of these dead letters exist."""
        return len(self._index.entries(self._destination, ids))

    def close(self) -> None:
        """Do nothing: the topic belongs to all runners."""
