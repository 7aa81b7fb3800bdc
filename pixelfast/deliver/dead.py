"""Dead letters: events that a destination rejected, kept until somebody decides about them.

`dead/<name>/dead.db`, SQLite as the state of destinations. `pixelfast dead` reads and marks it
while delivery runs; only delivery adds letters, and takes away those that were sent again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pixelfast.deliver.database import open_database
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["DeadLetter", "DeadLetterGroup", "DeadLetterLimits", "DeadLetters", "SourceDeadLetters"]

_SCHEMA_VERSION = 2
_SIZE = (
    "size_bytes INTEGER GENERATED ALWAYS AS (length(event) + length(reason) + length(answer))"
    " VIRTUAL"
)
# What each source's letters take is kept up to date in the transactions that change them: delivery
# and the commands change letters side by side. New letters are counted together, as there may be
# thousands a second, all others by triggers.
_BY_SOURCE = (
    """CREATE TABLE source (name TEXT PRIMARY KEY, letters INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0) STRICT""",
    "CREATE INDEX letter_source ON letter (source)",
    "CREATE INDEX letter_died ON letter (died_ms)",
    """CREATE TRIGGER letter_removed AFTER DELETE ON letter BEGIN
        UPDATE source SET letters = letters - 1, size_bytes = size_bytes - old.size_bytes
        WHERE name = old.source; END""",
    """CREATE TRIGGER letter_changed AFTER UPDATE OF reason, answer ON letter BEGIN
        UPDATE source SET size_bytes = size_bytes + new.size_bytes - old.size_bytes
        WHERE name = old.source; END""",
)
_SCHEMA = (
    """
CREATE TABLE letter (id INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL,
    number INTEGER NOT NULL, event BLOB NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    answer BLOB NOT NULL, attempts INTEGER NOT NULL, died_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, source TEXT NOT NULL DEFAULT '', """
    + _SIZE
    + """,
    UNIQUE (batch, number)) STRICT;
CREATE INDEX letter_replay ON letter (replay) WHERE replay > 0;
"""
    + ";\n".join((*_BY_SOURCE, ""))
)
_MIGRATIONS = {
    1: (
        "ALTER TABLE letter ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE letter ADD COLUMN " + _SIZE,
        *_BY_SOURCE,
        "INSERT INTO source (name, letters, size_bytes)"
        " SELECT source, count(*), sum(size_bytes) FROM letter GROUP BY source",
    )
}
_LETTERS = (
    "SELECT id, batch, number, event, status, reason, answer, attempts, died_ms, replay, source"
    " FROM letter"
)
# Many rows in one statement: sqlite3 releases the GIL for each, and beside a busy event loop waits
# to have it back. Powers of two, so that few statements are prepared. What all rows have in common
# is bound once.
_MAX_ROWS = 64
_INSERT = (
    "INSERT INTO letter (batch, attempts, died_ms, number, event, status, reason, answer, source)"
    " VALUES %s ON CONFLICT DO NOTHING"
)
_COMMON, _OWN = 3, 6  # parameters of all rows, and of each
# Pages of new files: letters of 1 KB fill large ones better, but an empty file has nine of them.
_SMALL_PAGE_BYTES, _LARGE_PAGE_BYTES = 4096, 8192
_MANY_BYTES = 2**24
_STEP_BYTES = 256 * 2**10
# A transaction of many letters must fit, or SQLite writes and syncs in the middle of it.
_CACHE_KIB = 2048
_New: TypeAlias = tuple[str, int, bytes, int, str, bytes, int, str]
_MIN_BYTES = 2**17  # whatever the disk has; an empty file with large pages has 72 KiB
_MAX_DROPPED = 500  # letters looked at in one step


class DeadLetterLimits(NamedTuple):
    """How much a destination's dead letters may take, and what happens at the limit.

    `on_full`: "drop_oldest" or "hold". `room`: how large a file of so many bytes may become, as the
    disk is now; it may wait for the disk.
    """

    max_bytes: int = 2**30
    max_age_s: float = float("inf")
    on_full: str = "drop_oldest"
    room: Callable[[int], int] | None = None

    def current_max_bytes(self, file_bytes: int) -> int:
        """Return how much letters in a file of so many bytes may take.

        A disk without room keeps the file from growing: new letters take the place of old ones.
        Fewer letters would not make it smaller.
        """
        if self.room is None:
            return self.max_bytes
        as_it_is = file_bytes - 2 * _STEP_BYTES  # the next step of letters fits into free pages
        return min(self.max_bytes, max(_MIN_BYTES, as_it_is, self.room(file_bytes)))


class SourceDeadLetters(NamedTuple):
    """The dead letters of one source; `dropped`: how many went to keep the bounds, ever."""

    letters: int
    size_bytes: int
    dropped: int
    oldest_ms: int  # when the oldest died; 0 if there is none


class DeadLetterGroup(NamedTuple):
    """Dead letters of one source with the same status and reason."""

    source: str
    status: int
    reason: str
    letters: int
    oldest_ms: int
    newest_ms: int


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


class DeadLetters:
    """The dead letters of one destination. Every method blocks for the disk."""

    def __init__(
        self,
        path: Path,
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        max_bytes: int = 0,
    ) -> None:
        """Open the letters at `path`; a new file is laid out for `max_bytes` of them."""
        self.path = path
        self._clock = clock
        page_bytes = _LARGE_PAGE_BYTES if max_bytes >= _MANY_BYTES else _SMALL_PAGE_BYTES
        self._db = open_database(
            path, _SCHEMA, _SCHEMA_VERSION, _read_all, _MIGRATIONS, _CACHE_KIB, page_bytes
        )
        self._page_bytes = int(self._db.execute("PRAGMA page_size").fetchone()[0])

    def add(self, letters: Iterable[_New], bounds: DeadLetterLimits | None = None) -> None:
        """Keep (batch, number, event, status, reason, response, attempts, source).

        Again does no harm. With `bounds`, letters that no longer fit are dropped in the same
        transaction.
        """
        now_ms = self._now_ms()
        if bounds is not None:
            bounds = bounds._replace(
                max_bytes=bounds.current_max_bytes(self.file_bytes()), room=None
            )
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for some in _in_steps(letters):
                self._add(some, now_ms)
                if bounds is not None:
                    self._keep_within(bounds)

    def _add(self, letters: list[_New], now_ms: int) -> None:
        """Keep letters and count them for their sources."""
        (last,) = self._db.execute("SELECT ifnull(max(id), 0) FROM letter").fetchone()
        added = 0
        for (batch, attempts), group in groupby(letters, key=itemgetter(0, 6)):
            same = list(group)
            start = 0
            while start < len(same):
                rows = min(_MAX_ROWS, 1 << (len(same) - start).bit_length() - 1)
                values: list[object] = [batch, attempts, now_ms]
                for _, number, event, status, reason, response, _, source in islice(
                    same, start, start + rows
                ):
                    # For bytes, unlike bytearray, sqlite3 looks for an adapter each time.
                    values += number, bytearray(event), status, reason, bytearray(response), source
                added += self._db.execute(_insert(rows), values).rowcount
                start += rows
        if added == len(letters):
            self._count(_sizes(letters))
        else:
            self._count_since(last)

    def _count_since(self, last: int) -> None:
        """Count the letters behind an id for their sources."""
        rows = self._db.execute(
            "SELECT source, count(*), sum(size_bytes) FROM letter WHERE id > ?"
            " GROUP BY +source",  # by id, not along the index of all sources
            [last],
        )
        self._count(rows.fetchall())

    def _count(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Add letters and bytes to what is noted of sources."""
        self._db.executemany(
            "INSERT INTO source (name, letters, size_bytes) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET letters = letters + excluded.letters,"
            " size_bytes = size_bytes + excluded.size_bytes",
            rows,
        )

    def keep_within(self, bounds: DeadLetterLimits) -> None:
        """Drop letters that are too old or no longer fit."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._keep_within(bounds)

    def _keep_within(self, bounds: DeadLetterLimits) -> None:
        """The oldest letters of the source that takes most go first.

        Anybody can send events that a destination rejects, with the public write key of one
        source: that must not cost the other sources their letters. A letter that is being sent
        again belongs to a plan and stays.
        """
        if bounds.max_age_s != float("inf"):
            until_ms = self._clock.surely_before_ms(bounds.max_age_s)
            old = "SELECT id, source FROM letter WHERE died_ms < ? AND replay < 2"
            self._drop(self._db.execute(old, [until_ms]).fetchall())
        if bounds.on_full != "drop_oldest":
            return
        max_bytes = bounds.current_max_bytes(self.file_bytes())
        while (excess := self.size_bytes() - max_bytes) > 0:
            sizes = self._db.execute(
                "SELECT name, size_bytes FROM source WHERE letters > 0 ORDER BY size_bytes DESC"
            ).fetchall()
            if not any(self._drop_oldest(name, excess) for name, _ in sizes):
                return

    def _drop_oldest(self, source: str, excess: int) -> bool:
        """Drop a source's oldest letters, about half of those that take `excess` bytes.

        How many pages become free is known only then: more at once would drop too many.
        """
        excess //= 2
        rows = self._db.execute(
            "SELECT id, size_bytes FROM letter WHERE source = ? AND replay < 2 ORDER BY id LIMIT ?",
            [source, _MAX_DROPPED],
        )
        chosen = []
        for identity, size_bytes in rows:
            chosen.append((identity, source))
            # What is larger than a page takes whole ones.
            page_bytes = self._page_bytes
            is_large = size_bytes > page_bytes
            excess -= -(-size_bytes // page_bytes) * page_bytes if is_large else size_bytes
            if excess <= 0:
                break
        return self._drop(chosen) > 0

    def _drop(self, rows: list[tuple[int, str]]) -> int:
        self._db.executemany("DELETE FROM letter WHERE id = ?", [row[:1] for row in rows])
        self._db.executemany(
            "UPDATE source SET dropped = dropped + ? WHERE name = ?",
            [(events, name) for name, events in Counter(name for _, name in rows).items()],
        )
        return len(rows)

    def size_bytes(self) -> int:
        """What they take on the disk: the file without its free pages, which are used again.

        SQLite's file does not shrink when rows are deleted.
        """
        return self.file_bytes() - self._pragma("freelist_count") * self._page_bytes

    def file_bytes(self) -> int:
        """How large the file is, with its free pages."""
        return self._pragma("page_count") * self._page_bytes

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def by_source(self) -> dict[str, SourceDeadLetters]:
        """What each source's letters take; sources that only dropped some with them."""
        rows = self._db.execute(
            "SELECT name, letters, size_bytes, dropped, (SELECT died_ms FROM letter"
            " WHERE letter.source = source.name ORDER BY id LIMIT 1) FROM source"
        )
        return {
            name: SourceDeadLetters(letters, size_bytes, dropped, oldest_ms or 0)
            for name, letters, size_bytes, dropped, oldest_ms in rows
        }

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM letter").fetchone()[0])

    def groups(self) -> list[DeadLetterGroup]:
        """Return the dead letters by source, status and reason, the largest group first."""
        rows = self._db.execute(
            "SELECT source, status, reason, count(*) AS letters, min(died_ms), max(died_ms)"
            " FROM letter GROUP BY source, status, reason ORDER BY letters DESC, source, reason"
        )
        return [DeadLetterGroup(*row) for row in rows]

    def read(self, ids: Iterable[int] | None = None, *, limit: int = 2**62) -> list[DeadLetter]:
        """Those with these ids, or all, oldest first."""
        if ids is None:
            rows = self._db.execute(_LETTERS + " ORDER BY id LIMIT ?", [limit])
            return [DeadLetter(*row) for row in rows]
        found = []
        for each in ids:
            rows = self._db.execute(_LETTERS + " WHERE id = ?", [each])
            found += [DeadLetter(*row) for row in rows]
        return found

    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int:
        """Have them sent again, all where none is named; returns how many will be."""
        return self._each("UPDATE letter SET replay = 1 WHERE replay = 0", ids)

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Give them up for good; not those that are being sent again. Returns how many."""
        return self._each("DELETE FROM letter WHERE replay = 0", ids)

    def take_for_replay(self, max_events: int, max_bytes: int) -> list[DeadLetter]:
        """Return the oldest that are to be sent again; from now on they are being sent.

        One at least, if any; no more of them than make so many events and bytes.
        """
        taken: list[DeadLetter] = []
        left_bytes = max_bytes
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            rows = self._db.execute(
                _LETTERS + " WHERE replay = 1 ORDER BY id LIMIT ?", [max_events]
            )
            for row in rows:
                letter = DeadLetter(*row)
                left_bytes -= len(letter.event) + 1
                if taken and left_bytes < 0:
                    break
                taken.append(letter)
            rows.close()
            self._db.executemany(
                "UPDATE letter SET replay = 2 WHERE id = ?", [(each.id,) for each in taken]
            )
        return taken

    def give_back(self, planned: Iterable[int]) -> None:
        """After a crash: those that were taken and are in no plan are taken again."""
        known = set(planned)
        rows = self._db.execute("SELECT id FROM letter WHERE replay = 2").fetchall()
        lost = [row for row in rows if row[0] not in known]
        if lost:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("UPDATE letter SET replay = 1 WHERE id = ?", lost)

    def remove(self, ids: Iterable[int]) -> None:
        """Those that the destination has by now."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM letter WHERE id = ?", [(each,) for each in ids])

    def reject_again(self, identity: int, status: int, reason: str, response: bytes) -> None:
        """One that was rejected once more."""
        self._db.execute(
            "UPDATE letter SET replay = 0, attempts = attempts + 1, status = ?, reason = ?,"
            " answer = ? WHERE id = ?",
            [status, reason, response, identity],
        )

    def close(self) -> None:
        self._db.close()

    def _now_ms(self) -> int:
        return round(self._clock.wall_s() * 1000)

    def _each(self, statement: str, ids: Iterable[int] | None) -> int:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if ids is None:
                return self._db.execute(statement).rowcount
            changed = 0
            for each in ids:
                changed += self._db.execute(f"{statement} AND id = ?", [each]).rowcount
            return changed


@cache
def _insert(rows: int) -> str:
    common = ", ".join(f"?{n + 1}" for n in range(_COMMON))
    own = (
        ", ".join(f"?{_COMMON + _OWN * row + n + 1}" for n in range(_OWN)) for row in range(rows)
    )
    return _INSERT % ", ".join(f"({common}, {each})" for each in own)


def _sizes(letters: Iterable[_New]) -> list[tuple[str, int, int]]:
    """Letters and bytes by source, as the column `size_bytes` counts them."""
    letters_of: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    for _, _, event, _, reason, response, _, source in letters:
        letters_of[source] += 1
        # SQLite's length() of a string ends at a zero.
        bytes_of[source] += len(event) + len(response) + len(reason.partition("\0")[0])
    return [(source, events, bytes_of[source]) for source, events in letters_of.items()]


def _in_steps(letters: Iterable[_New]) -> Iterator[list[_New]]:
    """So many at once that the file does not grow far beyond its bound before some are dropped."""
    step: list[_New] = []
    size_bytes = 0
    for each in letters:
        step.append(each)
        size_bytes += len(each[2])
        if size_bytes >= _STEP_BYTES:
            yield step
            step, size_bytes = [], 0
    if step:
        yield step


def _read_all(db: sqlite3.Connection) -> None:
    db.execute("SELECT batch, number + attempts + replay + died_ms FROM letter").fetchall()
