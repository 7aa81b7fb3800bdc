"""Dead letters: events that a destination rejected, kept until somebody decides about them.

`dead/<name>/dead.db`, SQLite as the state of destinations. `pixelfast dead` reads and marks it
while delivery runs; only delivery adds letters, and takes away those that were sent again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from pixelfast.deliver.bundles import Bundle, DeadLetter, Row, merged, numbers_in
from pixelfast.deliver.database import open_database
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["DeadLetterGroup", "DeadLetterLimits", "DeadLetters", "SourceDeadLetters"]

_SCHEMA_VERSION = 3
_SIZE = (
    "size_bytes INTEGER GENERATED ALWAYS AS (length(event) + length(reason) + length(answer))"
    " VIRTUAL"
)
# What each source's letters take is kept up to date in the transactions that change them: delivery
# and the commands change letters side by side. New letters are counted as they are added, all
# others by triggers.
_BY_SOURCE = (
    """CREATE TABLE source (name TEXT PRIMARY KEY, letters INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0) STRICT""",
    "CREATE INDEX letter_source ON letter (source)",
    "CREATE INDEX letter_died ON letter (died_ms)",
    """CREATE TRIGGER letter_changed AFTER UPDATE OF reason, answer ON letter BEGIN
        UPDATE source SET size_bytes = size_bytes + new.size_bytes - old.size_bytes
        WHERE name = old.source; END""",
)
_REMOVED = """CREATE TRIGGER letter_removed AFTER DELETE ON letter BEGIN
    UPDATE source SET letters = letters - old.letters, size_bytes = size_bytes - old.size_bytes
    WHERE name = old.source; END"""
# A row has one letter or several, see `bundles`. Long columns come last: SQLite reads through what
# stands before a column.
_SCHEMA = (
    """
CREATE TABLE letter (id INTEGER PRIMARY KEY AUTOINCREMENT, letters INTEGER NOT NULL DEFAULT 1,
    batch TEXT NOT NULL, number INTEGER NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    attempts INTEGER NOT NULL, died_ms INTEGER NOT NULL, replay INTEGER NOT NULL DEFAULT 0,
    source TEXT NOT NULL DEFAULT '', parts BLOB NOT NULL DEFAULT X'', event BLOB NOT NULL,
    answer BLOB NOT NULL, """
    + _SIZE
    + """,
    UNIQUE (batch, number)) STRICT;
CREATE INDEX letter_replay ON letter (replay) WHERE replay > 0;
"""
    + ";\n".join((*_BY_SOURCE, _REMOVED, ""))
)
_MIGRATIONS = {
    1: (
        "ALTER TABLE letter ADD COLUMN source TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE letter ADD COLUMN " + _SIZE,
        *_BY_SOURCE,
        "INSERT INTO source (name, letters, size_bytes)"
        " SELECT source, count(*), sum(size_bytes) FROM letter GROUP BY source",
    ),
    2: (
        "ALTER TABLE letter ADD COLUMN letters INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE letter ADD COLUMN parts BLOB NOT NULL DEFAULT X''",
        "DROP TRIGGER IF EXISTS letter_removed",
        _REMOVED,
    ),
}
# The columns of `Row`.
_ROWS = (
    "SELECT id, letters, batch, number, status, reason, attempts, died_ms, replay, source, parts,"
    " event, answer FROM letter"
)
_INSERT = (
    "INSERT INTO letter (id, letters, batch, number, status, reason, attempts, died_ms, replay,"
    " source, parts, event, answer) VALUES "
)
# Many rows in one statement: sqlite3 releases the GIL for each, and beside a busy event loop waits
# to have it back. Powers of two, so that few statements are prepared.
_MAX_ROWS = 64
# Pages of new files: a large one takes more letters in one row, but an empty file has nine of them.
_SMALL_PAGE_BYTES, _LARGE_PAGE_BYTES = 4096, 16384
_MANY_BYTES = 2**24
_STEP_BYTES = 256 * 2**10
# A transaction of many letters must fit, or SQLite writes and syncs in the middle of it.
_CACHE_KIB = 2048
_MIN_BYTES = 2**18  # whatever the disk has; an empty file with large pages has 144 KiB
_MAX_DROPPED = 500  # rows looked at in one step


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

    def add(self, bundles: Iterable[Bundle], bounds: DeadLetterLimits | None = None) -> None:
        """Keep letters; those that are there already stay as they are.

        With `bounds`, letters that no longer fit are dropped in the same transaction, step by
        step, so that the file does not grow far beyond its bound.
        """
        now_ms = self._now_ms()
        if bounds is not None:
            bounds = bounds._replace(
                max_bytes=bounds.current_max_bytes(self.file_bytes()), room=None
            )
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            next_id = self._last_id() + 1
            rows: list[Row] = []
            step_bytes = 0
            for bundle in self._new_ones(merged(bundles)):
                for row in bundle.rows(next_id, now_ms, self._page_bytes):
                    rows.append(row)
                    step_bytes += row.size_bytes
                    if step_bytes >= _STEP_BYTES:
                        self._add_step(rows, bounds)
                        rows, step_bytes = [], 0
                next_id += len(bundle.numbers)
            self._add_step(rows, bounds)
            self._db.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = 'letter'", [next_id - 1]
            )

    def _add_step(self, rows: list[Row], bounds: DeadLetterLimits | None) -> None:
        self._insert(rows)
        if bounds is not None:
            self._keep_within(bounds)

    def _last_id(self) -> int:
        """The last id that was ever given to a letter."""
        rows = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'letter'").fetchall()
        return int(rows[0][0]) if rows else 0

    def _new_ones(self, bundles: Iterable[Bundle]) -> Iterator[Bundle]:
        """Leave out the letters that are there: after a crash the last ones come again."""
        known: dict[str, set[int]] = {}
        for bundle in bundles:
            if bundle.batch not in known:
                rows = self._db.execute(
                    "SELECT letters, number, parts FROM letter WHERE batch = ?", [bundle.batch]
                )
                known[bundle.batch] = {number for row in rows for number in numbers_in(*row)}
            numbers = known[bundle.batch]
            if not numbers.isdisjoint(bundle.numbers):
                places = [n for n, each in enumerate(bundle.numbers) if each not in numbers]
                bundle = bundle.only(places)
            if bundle.numbers:
                yield bundle

    def _insert(self, rows: list[Row]) -> None:
        """Add rows and count them for their sources."""
        start = 0
        while start < len(rows):
            count = min(_MAX_ROWS, 1 << (len(rows) - start).bit_length() - 1)
            some = rows[start : start + count]
            self._db.execute(_insertion(count), list(chain.from_iterable(some)))
            start += count
        letters: Counter[str] = Counter()
        size_bytes: Counter[str] = Counter()
        for row in rows:
            letters[row.source] += row.letters
            size_bytes[row.source] += row.size_bytes
        self._db.executemany(
            "INSERT INTO source (name, letters, size_bytes) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET letters = letters + excluded.letters,"
            " size_bytes = size_bytes + excluded.size_bytes",
            [(name, letters[name], size_bytes[name]) for name in letters],
        )

    def _rows_of(self, ids: Iterable[int]) -> list[tuple[int, int, list[int]]]:
        """Find the rows with any of these letters: their ids, how many letters, and which."""
        rows: list[tuple[int, int, list[int]]] = []
        end = 0  # behind the letters of the last row
        for each in sorted(set(ids)):
            if each >= end:
                found = self._db.execute(
                    "SELECT id, letters FROM letter WHERE id <= ? ORDER BY id DESC LIMIT 1", [each]
                ).fetchone()
                if found is None or each >= sum(found):
                    continue
                rows.append((*found, []))
                end = sum(found)
            rows[-1][2].append(each)
        return rows

    def _row(self, row_id: int) -> Row:
        return Row(*self._db.execute(_ROWS + " WHERE id = ?", [row_id]).fetchone())

    def _isolate(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Have rows with these letters and no others; return the id and letters of each row."""
        isolated: list[tuple[int, int]] = []
        for row_id, letters, wanted in self._rows_of(ids):
            if len(wanted) == letters:
                isolated.append((row_id, letters))
                continue
            row = self._row(row_id)
            self._db.execute("DELETE FROM letter WHERE id = ?", [row_id])
            self._insert(row.divided())
            isolated += [(each, 1) for each in wanted]
        return isolated

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
            old = "SELECT id, source, letters FROM letter WHERE died_ms < ? AND replay < 2"
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
            "SELECT id, letters, size_bytes FROM letter WHERE source = ? AND replay < 2"
            " ORDER BY id LIMIT ?",
            [source, _MAX_DROPPED],
        )
        chosen = []
        for identity, letters, size_bytes in rows:
            chosen.append((identity, source, letters))
            # What is larger than a page takes whole ones.
            page_bytes = self._page_bytes
            is_large = size_bytes > page_bytes
            excess -= -(-size_bytes // page_bytes) * page_bytes if is_large else size_bytes
            if excess <= 0:
                break
        return self._drop(chosen) > 0

    def _drop(self, rows: list[tuple[int, str, int]]) -> int:
        """Drop rows, by id, source and letters."""
        dropped: Counter[str] = Counter()
        for _, source, letters in rows:
            dropped[source] += letters
        self._db.executemany("DELETE FROM letter WHERE id = ?", [row[:1] for row in rows])
        self._db.executemany(
            "UPDATE source SET dropped = dropped + ? WHERE name = ?",
            [(letters, name) for name, letters in dropped.items()],
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
        return self._sum("SELECT sum(letters) FROM letter")

    def _sum(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0] or 0

    def groups(self) -> list[DeadLetterGroup]:
        """Return the dead letters by source, status and reason, the largest group first."""
        rows = self._db.execute(
            "SELECT source, status, reason, sum(letters), min(died_ms), max(died_ms)"
            " FROM letter GROUP BY source, status, reason ORDER BY 4 DESC, source, reason"
        )
        return [DeadLetterGroup(*row) for row in rows]

    def read(self, ids: Iterable[int] | None = None, *, limit: int = 2**62) -> list[DeadLetter]:
        """Those with these ids, or all, oldest first."""
        if ids is None:
            return list(islice(self._letters(), limit))
        wanted = list(ids)
        rows = [self._row(row_id) for row_id, _, _ in self._rows_of(wanted)]
        found = {each.id: each for row in rows for each in row.to_letters()}
        return [found[each] for each in wanted if each in found]

    def _letters(self, condition: str = "") -> Iterator[DeadLetter]:
        for row in self._db.execute(f"{_ROWS} {condition} ORDER BY id"):
            yield from Row(*row).to_letters()

    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int:
        """Have them sent again, all where none is named; returns how many will be."""
        return self._change("UPDATE letter SET replay = 1 WHERE replay = 0", ids)

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Give them up for good; not those that are being sent again. Returns how many."""
        return self._change("DELETE FROM letter WHERE replay = 0", ids)

    def take_for_replay(self, max_events: int, max_bytes: int) -> list[DeadLetter]:
        """Return the oldest that are to be sent again; from now on they are being sent.

        One at least, if any; no more of them than make so many events and bytes.
        """
        taken: list[DeadLetter] = []
        left_bytes = max_bytes
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for letter in self._letters("WHERE replay = 1"):
                left_bytes -= len(letter.event) + 1
                if taken and (left_bytes < 0 or len(taken) == max_events):
                    break
                taken.append(letter)
            self._mark(2, [each.id for each in taken])
        return taken

    def give_back(self, planned: Iterable[int]) -> None:
        """After a crash: those that were taken and are in no plan are taken again."""
        known = set(planned)
        rows = self._db.execute("SELECT id, letters FROM letter WHERE replay = 2").fetchall()
        taken = (row_id + place for row_id, letters in rows for place in range(letters))
        lost = [each for each in taken if each not in known]
        if lost:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._mark(1, lost)

    def _mark(self, replay: int, ids: Iterable[int]) -> None:
        self._db.executemany(
            "UPDATE letter SET replay = ? WHERE id = ?",
            [(replay, row_id) for row_id, _ in self._isolate(ids)],
        )

    def remove(self, ids: Iterable[int]) -> None:
        """Those that the destination has by now."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM letter WHERE id = ?", [row[:1] for row in self._isolate(ids)]
            )

    def reject_again(self, identity: int, status: int, reason: str, response: bytes) -> None:
        """One that was rejected once more."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._isolate([identity])
            self._db.execute(
                "UPDATE letter SET replay = 0, attempts = attempts + 1, status = ?, reason = ?,"
                " answer = ? WHERE id = ?",
                [status, reason, response, identity],
            )

    def close(self) -> None:
        self._db.close()

    def _now_ms(self) -> int:
        return round(self._clock.wall_s() * 1000)

    def _change(self, statement: str, ids: Iterable[int] | None) -> int:
        """Change letters by a statement about rows with `replay = 0`; return how many."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if ids is None:
                changed = self._sum("SELECT sum(letters) FROM letter WHERE replay = 0")
                self._db.execute(statement)
                return changed
            changed = 0
            for row_id, letters in self._isolate(ids):
                changed += letters * self._db.execute(statement + " AND id = ?", [row_id]).rowcount
            return changed


@cache
def _insertion(rows: int) -> str:
    row = ", ".join("?" * len(Row._fields))
    return _INSERT + ", ".join([f"({row})"] * rows)


def _read_all(db: sqlite3.Connection) -> None:
    db.execute("SELECT batch, number + attempts + replay + died_ms FROM letter").fetchall()
    for row in db.execute("SELECT letters, number, parts FROM letter"):
        numbers_in(*row)
