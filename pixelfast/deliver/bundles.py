"""Bundles of dead letters: those of one batch that failed in the same way share a row.

If thousands of events per second are rejected, one row per dead letter would use more CPU time than
the delivery of all other events. The common values of a bundle are stored once. A row with several
dead letters fits into one page of the database, which SQLite writes, reads and drops as a whole.
"""

from __future__ import annotations

import sqlite3
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import add
from typing import NamedTuple

__all__ = ["Bundle", "DeadLetter", "Row", "merged", "numbers_in"]

_COMMON_BYTES = 200  # of a row, without its dead letters, reason and source
_PART_BYTES = 9  # of a dead letter: its position, the length of its response, a line feed


class Bundle(NamedTuple):
    """Events of one batch and source that a destination rejected in the same way.

    Attributes:
        numbers: the positions of the events in the batch.
        events: the JSON of each event, without a line feed.
        responses: the beginning of the destination's response to each event.
    """

    batch: str
    attempts: int
    source: str
    status: int
    reason: str
    numbers: Sequence[int]
    events: Sequence[bytes]
    responses: Sequence[bytes]

    def rows(self, first_id: int, died_ms: int, max_bytes: int) -> Iterator[Row]:
        """Yield rows of these dead letters, with ids from `first_id` on.

        A row has at most `max_bytes`, unless it contains only one dead letter.
        """
        batch, attempts, source, status, reason, numbers, events, responses = self
        free_bytes = max_bytes - len(reason) - len(source) - _COMMON_BYTES
        event_bytes = map(_PART_BYTES.__add__, map(len, events))
        ends = list(accumulate(map(add, event_bytes, map(len, responses)), initial=0))
        start = 0
        while start < len(numbers):
            stop = max(start + 1, bisect_right(ends, ends[start] + free_bytes, start) - 1)
            some = responses[start:stop]
            yield Row(
                first_id + start,
                stop - start,
                batch,
                numbers[start],
                status,
                reason,
                attempts,
                died_ms,
                0,
                source,
                _packed(numbers[start:stop], some) if stop > start + 1 else b"",
                b"\n".join(events[start:stop]),
                b"".join(some),
            )
            start = stop

    def only(self, places: Sequence[int]) -> Bundle:
        """Return a bundle of some of the dead letters, by their positions in this one."""
        return self._replace(
            numbers=[self.numbers[place] for place in places],
            events=[self.events[place] for place in places],
            responses=[self.responses[place] for place in places],
        )


class Row(NamedTuple):
    """A row of the table. Its dead letters have consecutive ids.

    Attributes:
        id: the id of the first dead letter.
        letters: the number of dead letters.
        number: the position of the first one in the batch.
        parts: if there are several, two little-endian unsigned 32-bit integers for each: first all
            positions, then the lengths of all responses.
        event: the events, separated by line feeds.
        answer: the responses, one after the other.
    """

    id: int
    letters: int
    batch: str
    number: int
    status: int
    reason: str
    attempts: int
    died_ms: int
    replay: int
    source: str
    parts: bytes
    event: bytes
    answer: bytes

    @property
    def size_bytes(self) -> int:
        """The value of the column of this name."""
        # SQLite's length() of a string ends at a NUL.
        return len(self.event) + len(self.answer) + len(self.reason.partition("\0")[0])

    def to_letters(self) -> list[DeadLetter]:
        """Return the dead letters, in the order of their ids.

        Raises:
            sqlite3.DatabaseError: the row is damaged.
        """
        numbers = numbers_in(self.letters, self.number, self.parts)
        events, responses = [self.event], [self.answer]
        if self.letters > 1:
            events = self.event.split(b"\n")
            ends = accumulate(_unpacked(self.letters, self.parts)[self.letters :], initial=0)
            responses = [self.answer[start:end] for start, end in pairwise(ends)]
            if len(events) != self.letters:
                raise sqlite3.DatabaseError("a row of dead letters is damaged")
        return [
            DeadLetter(
                self.id + place,
                self.batch,
                number,
                events[place],
                self.status,
                self.reason,
                responses[place],
                self.attempts,
                self.died_ms,
                self.replay,
                self.source,
            )
            for place, number in enumerate(numbers)
        ]

    def divided(self) -> list[Row]:
        """Return a row for each dead letter.

        Raises:
            sqlite3.DatabaseError: the row is damaged.
        """
        return [
            self._replace(
                id=each.id,
                letters=1,
                number=each.number,
                parts=b"",
                event=each.event,
                answer=each.response,
            )
            for each in self.to_letters()
        ]


class DeadLetter(NamedTuple):
    """An event that was rejected or given up.

    Attributes:
        batch, number: the id of its batch, and its position there.
        response: the first 1 KiB of the destination's response.
        attempts: the number of delivery attempts.
        died_ms: when it became a dead letter.
        replay: 0; 1 if it is to be replayed, 2 while it is replayed.
        source: the source of the event.
    """

    id: int
    batch: str
    number: int
    event: bytes
    status: int
    reason: str
    response: bytes
    attempts: int
    died_ms: int
    replay: int
    source: str


def merged(bundles: Iterable[Bundle]) -> list[Bundle]:
    """Combine bundles of one batch that failed in the same way.

    >>> one, two = (Bundle("b", 1, "web", 400, "no", [n], [b"{}"], [b""]) for n in (4, 7))
    >>> [bundle.numbers for bundle in merged([one, two])]
    [[4, 7]]
    """
    alike: dict[tuple[str, int, str, int, str], list[Bundle]] = {}
    for each in bundles:
        alike.setdefault(each[:5], []).append(each)
    return [_joined(same) if len(same) > 1 else same[0] for same in alike.values()]


def _joined(bundles: list[Bundle]) -> Bundle:
    numbers: list[int] = []
    events: list[bytes] = []
    responses: list[bytes] = []
    for each in bundles:
        numbers += each.numbers
        events += each.events
        responses += each.responses
    return bundles[0]._replace(numbers=numbers, events=events, responses=responses)


def numbers_in(letters: int, number: int, parts: bytes) -> Sequence[int]:
    """Return the positions of a row's dead letters in their batch, from these columns.

    Raises:
        sqlite3.DatabaseError: the row is damaged.
    """
    return (number,) if letters == 1 else _unpacked(letters, parts)[:letters]


def _packed(numbers: Sequence[int], responses: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{2 * len(numbers)}I", *numbers, *map(len, responses))


def _unpacked(letters: int, parts: bytes) -> tuple[int, ...]:
    if len(parts) != 8 * letters:
        raise sqlite3.DatabaseError("a row of dead letters is damaged")
    return struct.unpack(f"<{2 * letters}I", parts)
