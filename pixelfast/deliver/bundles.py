"""Bundles of dead letters: those of one batch that failed in the same way share a row.

If thousands of events per second are rejected, one row per dead letter would use more CPU time than
the delivery of all other events. The common values of a bundle are stored once. A row with several
dead letters fits into one page of the database, which SQLite writes, reads and drops as a whole.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from pixelfast.deliver.excerpts import Excerpts

__all__ = ["Bundle", "DeadLetter", "Row", "merged", "numbers_in"]

_DAMAGED = "a row of dead letters is damaged"
_COMMON_BYTES = 200  # of a row, without its dead letters, reason and source
_PART_BYTES = 17  # of a dead letter: its position, the division of its response, a line feed


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
    events: Excerpts
    responses: Excerpts

    def rows(self, first_id: int, died_ms: int, max_bytes: int) -> Iterator[Row]:
        """Yield rows of these dead letters, with ids from `first_id` on.

        A row has at most `max_bytes`, unless it contains only one dead letter.
        """
        batch, attempts, source, status, reason, numbers, events, responses = self
        free_bytes = max_bytes - len(reason) - len(source) - _COMMON_BYTES
        start = 0
        while start < len(numbers):
            stop, sizes, answer = responses.folded(start, free_bytes, _PART_BYTES, events)
            parts = b""
            if stop > start + 1:
                parts = struct.pack(f"<{stop - start}I", *numbers[start:stop]) + sizes
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
                parts,
                events.joined(start, stop, b"\n"),
                answer,
            )
            start = stop

    def only(self, places: Sequence[int]) -> Bundle:
        """Return a bundle of some of the dead letters, by their positions in this one."""
        return self._replace(
            numbers=[self.numbers[place] for place in places],
            events=self.events.picked(places),
            responses=self.responses.picked(places),
        )


class Row(NamedTuple):
    """A row of the table. Its dead letters have consecutive ids.

    Attributes:
        id: the id of the first dead letter.
        letters: the number of dead letters.
        number: the position of the first one in the batch.
        parts: if there are several, little-endian unsigned 32-bit integers: first all positions,
            then three for each response. These are the numbers of bytes that it shares with the
            beginning and with the end of the first response, and of its own bytes. Rows of schema
            version 3 have only the length of each response there.
        event: the events, separated by line feeds.
        answer: the own bytes of all responses, one after the other. The first response shares
            nothing.
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
            responses = _responses(self.letters, self.parts, self.answer)
            if len(events) != self.letters:
                raise sqlite3.DatabaseError(_DAMAGED)
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

    >>> event, response = Excerpts.of([b"{}"]), Excerpts.of([b""])
    >>> one, two = (Bundle("b", 1, "web", 400, "no", [n], event, response) for n in (4, 7))
    >>> [bundle.numbers for bundle in merged([one, two])]
    [[4, 7]]
    """
    alike: dict[tuple[str, int, str, int, str], list[Bundle]] = {}
    for each in bundles:
        alike.setdefault(each[:5], []).append(each)
    return [_joined(same) if len(same) > 1 else same[0] for same in alike.values()]


def _joined(bundles: list[Bundle]) -> Bundle:
    return bundles[0]._replace(
        numbers=[number for each in bundles for number in each.numbers],
        events=Excerpts.of(chain.from_iterable(each.events for each in bundles)),
        responses=Excerpts.of(chain.from_iterable(each.responses for each in bundles)),
    )


def numbers_in(letters: int, number: int, parts: bytes) -> Sequence[int]:
    """Return the positions of a row's dead letters in their batch, from these columns.

    Raises:
        sqlite3.DatabaseError: the row is damaged.
    """
    return (number,) if letters == 1 else _unpacked(letters, parts)[:letters]


def _responses(letters: int, parts: bytes, answer: bytes) -> list[bytes]:
    """Return the responses of a row with several dead letters."""
    numbers = _unpacked(letters, parts)
    own_bytes = numbers[letters + 2 :: 3] if len(numbers) == 4 * letters else numbers[letters:]
    own = [answer[start:end] for start, end in pairwise(accumulate(own_bytes, initial=0))]
    if len(numbers) == 2 * letters:
        return own
    first = own[0]
    shared = zip(numbers[letters::3], numbers[letters + 1 :: 3], strict=True)
    return [
        first[:before] + each + first[len(first) - behind :]
        for each, (before, behind) in zip(own, shared, strict=True)
    ]


def _unpacked(letters: int, parts: bytes) -> tuple[int, ...]:
    if len(parts) not in (8 * letters, 16 * letters):
        raise sqlite3.DatabaseError(_DAMAGED)
    return struct.unpack(f"<{len(parts) // 4}I", parts)
