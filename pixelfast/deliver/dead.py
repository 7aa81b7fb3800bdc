"""Dead letters: events that a destination refused, kept until somebody decides about them.

`dead/<name>/dead.db`, SQLite as the state of destinations. `pixelfast dead` reads and marks it
while delivery runs; only delivery adds letters, and takes away those that were sent again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pixelfast.deliver.database import open_database

__all__ = ["DeadLetters", "Letter"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE letter (id INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL,
    number INTEGER NOT NULL, event BLOB NOT NULL, status INTEGER NOT NULL, reason TEXT NOT NULL,
    answer BLOB NOT NULL, attempts INTEGER NOT NULL, died_ms INTEGER NOT NULL,
    replay INTEGER NOT NULL DEFAULT 0, UNIQUE (batch, number)) STRICT;
CREATE INDEX letter_replay ON letter (replay) WHERE replay > 0;
"""


class Letter(NamedTuple):
    """One event that was refused.

    `batch` and `number` are where it stood, `answer` the first 1 KB of what the destination said.
    """

    id: int
    batch: str
    number: int
    event: bytes
    status: int
    reason: str
    answer: bytes
    attempts: int
    died_ms: int
    replay: int


class DeadLetters:
    """The dead letters of one destination. Every method blocks for the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path, _SCHEMA, _SCHEMA_VERSION, _read_all)

    def add(self, letters: Iterable[tuple[str, int, bytes, int, str, bytes, int]]) -> None:
        """Keep (batch, number, event, status, reason, answer, attempts); again does no harm."""
        now_ms = time.time_ns() // 1_000_000
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO letter (batch, number, event, status, reason, answer, attempts,"
                " died_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(*each, now_ms) for each in letters],
            )

    def size_bytes(self) -> int:
        """What they take on the disk."""
        return self.path.stat().st_size

    def count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM letter").fetchone()[0])

    def letters(self, ids: Iterable[int] | None = None, *, limit: int = 2**62) -> list[Letter]:
        """Those with these ids, or all, oldest first."""
        if ids is None:
            rows = self._db.execute("SELECT * FROM letter ORDER BY id LIMIT ?", [limit])
            return [Letter(*row) for row in rows]
        found = []
        for each in ids:
            rows = self._db.execute("SELECT * FROM letter WHERE id = ?", [each])
            found += [Letter(*row) for row in rows]
        return found

    def ask_for_replay(self, ids: Iterable[int] | None = None) -> int:
        """Have them sent again, all where none is named; returns how many will be."""
        return self._each("UPDATE letter SET replay = 1 WHERE replay = 0", ids)

    def drop(self, ids: Iterable[int] | None = None) -> int:
        """Give them up for good; not those that are being sent again. Returns how many."""
        return self._each("DELETE FROM letter WHERE replay = 0", ids)

    def take_for_replay(self, most: int) -> dict[int, bytes]:
        """The oldest that are to be sent again, and from now on are being sent: event by id."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            rows = self._db.execute(
                "SELECT id, event FROM letter WHERE replay = 1 ORDER BY id LIMIT ?", [most]
            ).fetchall()
            self._db.executemany("UPDATE letter SET replay = 2 WHERE id = ?", [r[:1] for r in rows])
        return dict(rows)

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

    def refuse_again(self, identity: int, status: int, reason: str, answer: bytes) -> None:
        """One that was refused once more."""
        self._db.execute(
            "UPDATE letter SET replay = 0, attempts = attempts + 1, status = ?, reason = ?,"
            " answer = ? WHERE id = ?",
            [status, reason, answer, identity],
        )

    def close(self) -> None:
        self._db.close()

    def _each(self, statement: str, ids: Iterable[int] | None) -> int:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if ids is None:
                return self._db.execute(statement).rowcount
            changed = 0
            for each in ids:
                changed += self._db.execute(f"{statement} AND id = ?", [each]).rowcount
            return changed


def _read_all(db: sqlite3.Connection) -> None:
    db.execute("SELECT batch, number + attempts + replay + died_ms FROM letter").fetchall()
