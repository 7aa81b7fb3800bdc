"""A destination's cursors, plans and totals, on the disk before anything relies on them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from pixelfast.deliver.database import open_database
from pixelfast.deliver.plans import Plan
from pixelfast.spool import Position
from pixelfast.spool.datadir import make_directory, sync_directory

__all__ = ["Changes", "Progress", "Store", "read_low_water", "read_progress", "register"]

_log = structlog.get_logger("deliver")
_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE cursor (slot INTEGER PRIMARY KEY, segment INTEGER NOT NULL,
                     "offset" INTEGER NOT NULL, skip INTEGER NOT NULL,
                     number INTEGER) STRICT;
CREATE TABLE plan (id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE memory (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""


@dataclass(slots=True)
class Changes:
    """What is to be written in one transaction.

    Attributes:
        after: where cutting goes on, slot by slot: behind all that is planned or not wanted.
        numbers: the number of the event there, where it is known.
        planned: plans that are new.
        ended: ids of plans that have come to their end.
        memory: what the destination asked to remember; None: as it was.
        counted: to be added to the totals.
    """

    after: dict[int, Position] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    planned: list[Plan] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    memory: dict[str, object] | None = None
    counted: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.after or self.planned or self.ended or self.counted)

    def count(self, name: str, events: int) -> None:
        if events:
            self.counted[name] = self.counted.get(name, 0) + events


class Store:
    """One destination's `state.db`.

    A damaged one is set aside and a new one begun: its destination gets again what the spool still
    holds, which delivery at least once allows and losing events does not.

    Every method blocks for the disk; one thread at a time may call.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path, _SCHEMA, _SCHEMA_VERSION, _read_all)

    def cursors(self) -> dict[int, Position]:
        """Where cutting goes on."""
        return _cursors(self._db)

    def plans(self) -> list[Plan]:
        """The plans that have not come to their end, in their order."""
        return _plans(self._db)

    def numbers(self) -> dict[int, int]:
        """The number of the event at each cursor, where it is known."""
        return dict(self._db.execute("SELECT slot, number FROM cursor WHERE number IS NOT NULL"))

    def memory(self) -> dict[str, object]:
        """What the destination asked to remember with its last batch."""
        row = self._db.execute("SELECT value FROM memory WHERE name = 'destination'").fetchone()
        try:
            return msgspec.json.decode(row[0], type=dict[str, object]) if row else {}
        except (msgspec.DecodeError, TypeError):
            _log.error("memory_damaged", path=str(self.path))
            return {}

    def counters(self) -> dict[str, int]:
        """Totals since the database was made."""
        return dict(self._db.execute("SELECT name, value FROM counter"))

    def commit(self, changes: Changes) -> None:
        """Write all of it or nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?, ?)",
                [
                    (slot, *position, changes.numbers.get(slot))
                    for slot, position in changes.after.items()
                ],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO plan VALUES (?, ?)",
                [(plan.id, msgspec.json.encode(plan)) for plan in changes.planned],
            )
            self._db.executemany(
                "DELETE FROM plan WHERE id = ?", [(identity,) for identity in changes.ended]
            )
            if changes.memory is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO memory VALUES ('destination', ?)",
                    (msgspec.json.encode(changes.memory),),
                )
            self._db.executemany(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) "
                "DO UPDATE SET value = value + excluded.value",
                list(changes.counted.items()),
            )

    def close(self) -> None:
        self._db.close()


def register(path: Path, cursors: dict[int, Position], numbers: dict[int, int]) -> None:
    """Make the state of a destination that is new: its reading begins at `cursors`.

    `numbers` are those of the events there: what comes before is none of its own.

    Whole or not at all, and only once: a state that is there stays as it is. A folder without one
    is no new destination but one that lost its state; that begins at the earliest event.
    """
    folder = path.parent
    if folder.exists():
        return
    make_directory(folder.parent)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        store = Store(temporary / path.name)
        counted = {"before": sum(numbers.values())}
        store.commit(Changes(after=cursors, numbers=numbers, counted=counted))
        store.close()
        sync_directory(temporary)
        with contextlib.suppress(OSError):  # somebody else was faster
            os.rename(temporary, folder)  # noqa: PTH104 - fails on a folder that is not empty
        sync_directory(folder.parent)
    finally:
        if temporary.exists():
            for each in temporary.iterdir():
                each.unlink()
            temporary.rmdir()


class Progress(NamedTuple):
    """How far a destination has got, as it stands on the disk."""

    cursors: dict[int, Position]
    plans: list[Plan]
    counted: dict[str, int]


def read_progress(path: Path) -> Progress:
    """Read the state of a destination that another process may use, and change nothing.

    Raises:
        sqlite3.Error, msgspec.DecodeError: it can't be read now, or is damaged.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.2)) as db:
        counted = dict(db.execute("SELECT name, value FROM counter"))
        return Progress(_cursors(db), _plans(db), counted)


def read_low_water(path: Path) -> dict[int, Position]:
    """Return what a destination still needs, slot by slot; raises as `read_progress`."""
    progress = read_progress(path)
    low = progress.cursors
    for plan in progress.plans:
        for each in plan.ranges:
            low[each.slot] = min(each.start, low.get(each.slot, each.start))
    return low


def _cursors(db: sqlite3.Connection) -> dict[int, Position]:
    rows = db.execute('SELECT slot, segment, "offset", skip FROM cursor')
    return {slot: Position(segment, offset, skip) for slot, segment, offset, skip in rows}


def _plans(db: sqlite3.Connection) -> list[Plan]:
    rows = db.execute("SELECT body FROM plan")
    found = [msgspec.json.decode(body, type=Plan) for (body,) in rows]
    return sorted(found, key=lambda plan: plan.order)


def _read_all(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA integrity_check").fetchone()[0]  # indexes, too
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    for query in (
        'SELECT slot + 0, segment + 0, "offset" + 0, skip + 0, number + 0 FROM cursor',
        "SELECT name, value FROM memory",
        "SELECT name, value + 0 FROM counter",
    ):
        db.execute(query).fetchall()
    _plans(db)
