"""A destination's cursors, plans and totals, stored before anything depends on them."""

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
# Made at import: threads that decode the first plans at the same time would crash msgspec, which
# completes its description of a type only then.
_PLAN = msgspec.json.Decoder(Plan)
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
    """The changes of one transaction.

    Attributes:
        after: by slot, where cutting continues: after all events that are planned or filtered out.
        numbers: by slot, the number of the event there, if it is known.
        planned: new plans.
        ended: ids of plans that have ended.
        memory: what the destination asked to remember; None if it is unchanged.
        counted: numbers to add to the totals.
        by_batch: those of `counted` that belong to a batch, by the id of the whole batch.
    """

    after: dict[int, Position] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    planned: list[Plan] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    memory: dict[str, object] | None = None
    counted: dict[str, int] = field(default_factory=dict)
    by_batch: dict[str, dict[str, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.after or self.planned or self.ended or self.counted)

    def count(self, name: str, events: int, batch: str = "") -> None:
        if not events:
            return
        self.counted[name] = self.counted.get(name, 0) + events
        if batch:
            own = self.by_batch.setdefault(batch, {})
            own[name] = own.get(name, 0) + events


class Store:
    """One destination's `state.db`.

    A damaged file is renamed and a new one is created. All events that the spool still has are then
    delivered again: at-least-once delivery allows repeated events but no lost ones.

    Every method blocks for the disk. Only one thread at a time may call them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_database(path, _SCHEMA, _SCHEMA_VERSION, _read_all)

    @property
    def room(self) -> float:
        """How many more batches may be planned: any number."""
        return float("inf")

    def cursors(self) -> dict[int, Position]:
        """Return where cutting continues, by slot."""
        return _cursors(self._db)

    def plans(self) -> list[Plan]:
        """Return the plans that have not ended, in their order."""
        return _plans(self._db)

    def numbers(self) -> dict[int, int]:
        """Return the number of the event at each cursor, if it is known."""
        return dict(self._db.execute("SELECT slot, number FROM cursor WHERE number IS NOT NULL"))

    def memory(self) -> dict[str, object]:
        """Return what the destination asked to remember with its last batch."""
        row = self._db.execute("SELECT value FROM memory WHERE name = 'destination'").fetchone()
        try:
            return msgspec.json.decode(row[0], type=dict[str, object]) if row else {}
        except (msgspec.DecodeError, TypeError):
            _log.error("destination_memory_damaged", path=str(self.path))
            return {}

    def counters(self) -> dict[str, int]:
        """Return the totals since the database was created."""
        return dict(self._db.execute("SELECT name, value FROM counter"))

    def commit(self, changes: Changes) -> None:
        """Write all changes in one transaction."""
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
    """Create the state of a new destination, which begins to read at `cursors`.

    `numbers` are the numbers of the events there; earlier events do not belong to the destination.

    The state is created completely or not at all, and an existing one is not changed. A destination
    whose folder exists without a state has lost it, and begins at the earliest event.
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
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(temporary, folder)  # noqa: PTH104 - fails on a folder that is not empty
        sync_directory(folder.parent)
    finally:
        if temporary.exists():
            for each in temporary.iterdir():
                each.unlink()
            temporary.rmdir()


class Progress(NamedTuple):
    """A destination's cursors, plans and totals, as stored on the disk."""

    cursors: dict[int, Position]
    plans: list[Plan]
    counted: dict[str, int]


def read_progress(path: Path) -> Progress:
    """Read the state of a destination without changing it; another process may use it.

    Raises:
        sqlite3.Error, msgspec.DecodeError: the state cannot be read now, or is damaged.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.2)) as db:
        counted = dict(db.execute("SELECT name, value FROM counter"))
        return Progress(_cursors(db), _plans(db), counted)


def read_low_water(path: Path) -> dict[int, Position]:
    """Return the first position that a destination still needs, by slot.

    Raises:
        sqlite3.Error, msgspec.DecodeError: as `read_progress`.
    """
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
    found = [_PLAN.decode(body) for (body,) in rows]
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
