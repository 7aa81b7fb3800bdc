"""Dead letters in bundles: those of one batch that failed in the same way make one row.

Where thousands of events a second are rejected, a row for each letter would cost more CPU than the
delivery of all others. What the letters of a bundle have in common is stored once. A row with
several letters fits into one page of the database: SQLite writes, reads and drops it as a whole,
and an event is never torn in two, whatever else reads the file.
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

_COMMON_BYTES = 200  # of a row: what stands beside its letters, its reason and its source
_PART_BYTES = 9  # of a letter: its place, the length of its response, a line feed


class Bundle(NamedTuple):
    """Events of one batch and source that a destination rejected in the same way.

    `numbers` are their places in the batch, `responses` the beginnings of what the destination
    said. An event contains no line feed.
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
        """Return rows of these letters with ids from `first_id` on.

        A row takes at most `max_bytes`, unless it has one letter only.
        """
        batch, attempts, source, status, reason, numbers, events, responses = self
        room_bytes = max_bytes - len(reason) - len(source) - _COMMON_BYTES
        event_bytes = map(_PART_BYTES.__add__, map(len, events))
        ends = list(accumulate(map(add, event_bytes, map(len, responses)), initial=0))
        start = 0
        while start < len(numbers):
            stop = max(start + 1, bisect_right(ends, ends[start] + room_bytes, start) - 1)
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
        """Return a bundle of some of the letters, by their places in this one."""
        return self._replace(
            numbers=[self.numbers[place] for place in places],
            events=[self.events[place] for place in places],
            responses=[self.responses[place] for place in places],
        )


class Row(NamedTuple):
    """One row of the table. Its letters have consecutive ids, `id` is the first.

    `number` is the place of the first letter in the batch. `parts` has two unsigned 32-bit
    integers, little-endian, for each of several letters: all places, then the lengths of all
    responses. `event` has the events, separated by line feeds, and `answer` the responses.
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
        """What the column of this name has."""
        # SQLite's length() of a string ends at a zero.
        return len(self.event) + len(self.answer) + len(self.reason.partition("\0")[0])

    def to_letters(self) -> list[DeadLetter]:
        """Return the letters, in the order of their ids.

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
        """Return a row for each letter; raises as `to_letters`."""
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
    """One event that was rejected.

    `batch` and `number` are where it stood, `response` the first 1 KB of what the destination said.
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
    """Return bundles of which no two could be one.

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
    """Return the places of a row's letters in their batch, from the columns of these names.

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
