"""Dead letters: events that a destination rejected, kept until an operator decides.

They are stored in `dead/<name>/dead.db`, in SQLite like the state of destinations. `pixelfast dead`
reads and marks them while delivery runs. Only delivery adds them and removes delivered ones.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pixelfast.deliver.bundles import Bundle, DeadLetter, Row, merged, numbers_in
from pixelfast.deliver.database import open_database
from pixelfast.deliver.dead_schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["DeadLetterGroup", "DeadLetterLimits", "DeadLetters", "SourceDeadLetters"]

# The columns of `Row`.
_ROWS = (
    "SELECT id, letters, batch, number, status, reason, attempts, died_ms, replay, source, parts,"
    " event, answer FROM letter"
)
_MAX_BATCHES = 16
_OF_BATCHES = (
    "SELECT batch, letters, number, parts FROM letter"
    " WHERE batch IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT = (
    "INSERT INTO letter (id, letters, batch, number, status, reason, attempts, died_ms, replay,"
    " source, parts, event, answer) VALUES "
)
# There are few statements in a transaction, because sqlite3 releases the GIL for each, and beside a
# busy event loop waits to get it back. Many rows are inserted by one statement. Their numbers are
# powers of two, so that few statements are prepared.
_MAX_ROWS = 64
# Page sizes of new files: a large page fits more dead letters per row, but an empty file has nine.
_SMALL_PAGE_BYTES, _LARGE_PAGE_BYTES = 4096, 16384
_MANY_BYTES = 2**24
_STEP_BYTES, _LARGE_STEP_BYTES = 2**18, 2**20
_NEAR_BYTES = 2**22  # to the limit; then steps are small
# Large transactions must fit, otherwise SQLite writes and syncs in the middle of them.
_CACHE_KIB = 2048
_MIN_BYTES = 2**18  # even on a full disk; an empty file with large pages has 144 KiB
_MAX_DROPPED = 500  # rows in one step


class DeadLetterLimits(NamedTuple):
    """The limits of a destination's dead letters, and the action at the limit.

    Attributes:
        max_bytes: maximum disk space.
        max_age_s: dead letters are dropped at this age.
        on_full: "drop_oldest", or "hold" to hold the destination.
        disk_limit: returns how large a file of this size may become with the current free disk
            space; may block for the disk.
    """

    max_bytes: int = 2**30
    max_age_s: float = float("inf")
    on_full: str = "drop_oldest"
    disk_limit: Callable[[int], int] | None = None

    def current_max_bytes(self, file_bytes: int) -> int:
        """Return the current maximum size of dead letters in a file of `file_bytes`.

        On a full disk, the file must not grow, so new dead letters replace old ones. The file would
        not shrink with fewer dead letters.
        """
        if self.disk_limit is None:
            return self.max_bytes
        as_it_is = file_bytes - 2 * _STEP_BYTES  # the next step fits into free pages
        return min(self.max_bytes, max(_MIN_BYTES, as_it_is, self.disk_limit(file_bytes)))


class FileSizes(NamedTuple):
    """The size of the database, with and without its free pages."""

    file_bytes: int
    used_bytes: int


class SourceDeadLetters(NamedTuple):
    """The dead letters of one source.

    Attributes:
        letters: their number.
        dropped: the total number of those dropped because of a limit.
        oldest_ms: when the oldest was added; 0 without any.
    """

    letters: int
    size_bytes: int
    dropped: int
    oldest_ms: int


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
        """Open the database at `path`; a new file is optimized for this maximum size."""
        self.path = path
        self._clock = clock
        page_bytes = _LARGE_PAGE_BYTES if max_bytes >= _MANY_BYTES else _SMALL_PAGE_BYTES
        self._db = open_database(
            path, SCHEMA, SCHEMA_VERSION, _read_all, MIGRATIONS, _CACHE_KIB, page_bytes
        )
        self._page_bytes = int(self._db.execute("PRAGMA page_size").fetchone()[0])

    def add(self, bundles: Iterable[Bundle], limits: DeadLetterLimits | None = None) -> None:
        """Add dead letters; existing ones are not added again.

        With `limits`, dead letters that exceed them are dropped in the same transaction, in steps,
        so that the file does not grow far beyond its limit.
        """
        now_ms = self._now_ms()
        spare_bytes = float("inf")
        if limits is not None:
            file_bytes = self.sizes().file_bytes
            limits = limits._replace(
                max_bytes=limits.current_max_bytes(file_bytes), disk_limit=None
            )
            spare_bytes = limits.max_bytes - file_bytes
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            next_id = self._last_id() + 1
            rows: list[Row] = []
            step_bytes = 0
            for bundle in self._new_ones(merged(bundles)):
                for row in bundle.rows(next_id, now_ms, self._page_bytes):
                    rows.append(row)
                    step_bytes += row.size_bytes
                    spare_bytes -= row.size_bytes
                    is_near = spare_bytes < _NEAR_BYTES
                    if step_bytes >= (_STEP_BYTES if is_near else _LARGE_STEP_BYTES):
                        self._add_step(rows, limits)
                        rows, step_bytes = [], 0
                next_id += len(bundle.numbers)
            self._add_step(rows, limits)
            self._db.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = 'letter'", [next_id - 1]
            )

    def _add_step(self, rows: list[Row], limits: DeadLetterLimits | None) -> None:
        self._insert(rows)
        if limits is not None:
            self._drop_excess(limits)

    def _last_id(self) -> int:
        """Return the last id that was ever assigned."""
        rows = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'letter'").fetchall()
        return int(rows[0][0]) if rows else 0

    def _new_ones(self, bundles: Sequence[Bundle]) -> Iterator[Bundle]:
        """Yield bundles without existing dead letters; the last ones are repeated after a crash."""
        known = self._known({bundle.batch for bundle in bundles})
        for bundle in bundles:
            numbers = known.get(bundle.batch, set())
            if not numbers.isdisjoint(bundle.numbers):
                places = [n for n, each in enumerate(bundle.numbers) if each not in numbers]
                bundle = bundle.only(places)
            if bundle.numbers:
                yield bundle

    def _known(self, batches: Iterable[str]) -> dict[str, set[int]]:
        """Return the positions of the existing dead letters of batches that have any."""
        known: dict[str, set[int]] = {}
        names = list(batches)
        for start in range(0, len(names), _MAX_BATCHES):
            some = names[start : start + _MAX_BATCHES]
            some += [some[0]] * (_MAX_BATCHES - len(some))
            for batch, *columns in self._db.execute(_OF_BATCHES, some):
                known.setdefault(batch, set()).update(numbers_in(*columns))
        return known

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
        """Find the rows of these dead letters; return the id, length and wanted ids of each."""
        rows: list[tuple[int, int, list[int]]] = []
        end = 0  # the id after the last row's dead letters
        for each in sorted({each for each in ids if 0 < each < 2**63}):
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
        """Isolate these dead letters in rows; return the id and length of each row."""
        isolated: list[tuple[int, int]] = []
        for row_id, letters, wanted in self._rows_of(ids):
            if len(wanted) == letters:
                isolated.append((row_id, letters))
                continue
            self._divide(row_id)
            isolated += [(each, 1) for each in wanted]
        return isolated

    def _divide(self, row_id: int) -> None:
        """Replace a row by one for each of its dead letters."""
        row = self._row(row_id)
        self._db.execute("DELETE FROM letter WHERE id = ?", [row_id])
        self._insert(row.divided())

    def keep_within(self, limits: DeadLetterLimits) -> None:
        """Drop dead letters that exceed the limits of age and size."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if limits.max_age_s != float("inf"):
                until_ms = self._clock.surely_before_ms(limits.max_age_s)
                old = "SELECT id, source, letters FROM letter WHERE died_ms < ? AND replay < 2"
                self._drop(self._db.execute(old, [until_ms]).fetchall())
            self._drop_excess(limits)

    def _drop_excess(self, limits: DeadLetterLimits) -> None:
        """Drop the oldest dead letters of the source that uses the most disk space first.

        Write keys are public, so any client can send events that a destination rejects. That must
        not drop the dead letters of other sources. A dead letter that is being replayed belongs to
        a plan and is kept.
        """
        if limits.on_full != "drop_oldest":
            return
        found = self.sizes()
        max_bytes = limits.current_max_bytes(found.file_bytes)
        while (excess := found.used_bytes - max_bytes) > 0:
            sizes = self._db.execute(
                "SELECT name, size_bytes FROM source WHERE letters > 0 ORDER BY size_bytes DESC"
            ).fetchall()
            if not any(self._drop_oldest(name, excess) for name, _ in sizes):
                return
            found = self.sizes()

    def _drop_oldest(self, source: str, excess: int) -> bool:
        """Drop a source's oldest dead letters, about half of those that use `excess` bytes.

        Only afterwards is it known how many pages became free, so more could be too many.
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
            # A row that is larger than a page uses whole pages.
            page_bytes = self._page_bytes
            is_large = size_bytes > page_bytes
            excess -= -(-size_bytes // page_bytes) * page_bytes if is_large else size_bytes
            if excess <= 0:
                break
        return self._drop(chosen) > 0

    def _drop(self, rows: list[tuple[int, str, int]]) -> int:
        """Drop rows, given as id, source and number of dead letters."""
        dropped: Counter[str] = Counter()
        for _, source, letters in rows:
            dropped[source] += letters
        self._db.executemany("DELETE FROM letter WHERE id = ?", [row[:1] for row in rows])
        self._db.executemany(
            "UPDATE source SET dropped = dropped + ? WHERE name = ?",
            [(letters, name) for name, letters in dropped.items()],
        )
        return len(rows)

    def sizes(self) -> FileSizes:
        """Return the size of the file, and how much of it is used.

        The file does not shrink when rows are deleted, but free pages are reused.
        """
        pages, free_pages = self._db.execute(
            "SELECT page_count, freelist_count FROM pragma_page_count(), pragma_freelist_count()"
        ).fetchone()
        return FileSizes(pages * self._page_bytes, (pages - free_pages) * self._page_bytes)

    def by_source(self) -> dict[str, SourceDeadLetters]:
        """Return the counts of each source that has dead letters or had some dropped."""
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
        """Return the dead letters with these ids, or all, the oldest first."""
        if ids is None:
            return list(islice(self._letters(), limit))
        wanted = list(ids)
        with self._db:
            self._db.execute("BEGIN")  # others may change rows between two queries
            rows = [self._row(row_id) for row_id, _, _ in self._rows_of(wanted)]
        found = {each.id: each for row in rows for each in row.to_letters()}
        return [found[each] for each in wanted if each in found]

    def _letters(self, condition: str = "") -> Iterator[DeadLetter]:
        for row in self._db.execute(f"{_ROWS} {condition} ORDER BY id"):
            yield from Row(*row).to_letters()

    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int:
        """Mark dead letters, by default all, for replay; return how many were marked."""
        return self._change("UPDATE letter SET replay = 1 WHERE replay = 0", ids)

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Delete dead letters, by default all, except those being replayed; return how many."""
        return self._change("DELETE FROM letter WHERE replay = 0", ids)

    def take_for_replay(self, max_events: int, max_bytes: int) -> list[DeadLetter]:
        """Return the oldest dead letters that are marked for replay, and mark them as replayed.

        At most `max_events` with together `max_bytes`, but at least one if any is marked.
        """
        taken: list[DeadLetter] = []
        left_bytes = max_bytes
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for letter in self._letters("WHERE replay > 0 AND replay = 1"):
                left_bytes -= len(letter.event) + 1
                if taken and (left_bytes < 0 or len(taken) == max_events):
                    break
                taken.append(letter)
            self._mark(2, [each.id for each in taken])
        return taken

    def existing(self, ids: Iterable[int]) -> int:
        """Return how many of these dead letters exist."""
        return sum(len(wanted) for _, _, wanted in self._rows_of(ids))

    def are_replayed(self, ids: Iterable[int]) -> bool:
        """Whether the replay of these dead letters has not ended: none was removed or changed."""
        return set(ids).issubset(self._taken())

    def give_back(self, planned: Iterable[int]) -> None:
        """Mark dead letters that were taken but not planned before a crash for another replay."""
        known = set(planned)
        lost = [each for each in self._taken() if each not in known]
        if lost:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._mark(1, lost)

    def _taken(self) -> list[int]:
        """Return the ids of the dead letters that are being replayed."""
        rows = self._db.execute("SELECT id, letters FROM letter WHERE replay > 0 AND replay = 2")
        return [row_id + place for row_id, letters in rows for place in range(letters)]

    def _mark(self, replay: int, ids: Iterable[int]) -> None:
        self._db.executemany(
            "UPDATE letter SET replay = ? WHERE id = ?",
            [(replay, row_id) for row_id, _ in self._isolate(ids)],
        )

    def end_replay(
        self,
        delivered: Iterable[int] = (),
        failed: Mapping[int, Rejected | Retry] = MappingProxyType({}),
    ) -> None:
        """Remove delivered dead letters and record how others failed again, in one transaction."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM letter WHERE id = ?", [row[:1] for row in self._isolate(delivered)]
            )
            for row_id, letters in self._isolate(failed):
                if letters > 1:
                    self._divide(row_id)
            self._db.executemany(
                "UPDATE letter SET replay = 0, attempts = attempts + 1, status = ?, reason = ?,"
                " answer = ? WHERE id = ?",
                [(how.status, how.reason, how.response, each) for each, how in failed.items()],
            )

    def close(self) -> None:
        self._db.close()

    def _now_ms(self) -> int:
        return round(self._clock.wall_s() * 1000)

    def _change(self, statement: str, ids: Iterable[int] | None) -> int:
        """Change dead letters by a statement about rows with `replay = 0`; return how many."""
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
