"""A destination's cursors, on the disk before anything relies on them.

SQLite with a rollback journal (`journal_mode=TRUNCATE`, `synchronous=FULL`) and one connection:
versions 3.7.0 to 3.51.2 can corrupt a database in WAL mode, and distributions ship some of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import msgspec
import structlog

from pixelfast.spool import Position
from pixelfast.spool.datadir import sync_directory

__all__ = ["Store"]

_log = structlog.get_logger("deliver")
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE cursor (slot INTEGER PRIMARY KEY, segment INTEGER NOT NULL,
                     "offset" INTEGER NOT NULL, skip INTEGER NOT NULL) STRICT;
CREATE TABLE memory (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""


class Store:
    """One destination's `state.db`: where each slot's reading goes on, and what it remembers.

    Every method blocks for the disk; one thread at a time may call.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, made where it is missing.

        A damaged one is set aside and a new one begun: its destination gets again what the spool
        still holds, which delivery at least once allows and losing events does not.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = _open(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not _is_damage(error, path):
                raise
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
            _log.error("state_damaged", path=str(path), error=str(error), set_aside=aside.name)
            path.replace(aside)
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f"{path.name}-journal").unlink()
            sync_directory(path.parent)
            self._db = _open(path)

    def cursors(self) -> dict[int, Position]:
        """Where each slot's reading goes on."""
        rows = self._db.execute('SELECT slot, segment, "offset", skip FROM cursor')
        return {slot: Position(segment, offset, skip) for slot, segment, offset, skip in rows}

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

    def commit(
        self,
        after: dict[int, Position],
        memory: dict[str, object] | None = None,
        counted: dict[str, int] | None = None,
    ) -> None:
        """Move cursors, replace the memory and add to the totals, all of it or nothing."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO cursor VALUES (?, ?, ?, ?) ON CONFLICT (slot) DO UPDATE SET "
                'segment = excluded.segment, "offset" = excluded."offset", skip = excluded.skip',
                [(slot, *position) for slot, position in after.items()],
            )
            if memory is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO memory VALUES ('destination', ?)",
                    (msgspec.json.encode(memory),),
                )
            self._db.executemany(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) "
                "DO UPDATE SET value = value + excluded.value",
                list((counted or {}).items()),
            )

    def close(self) -> None:
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
            )
        elif version != _SCHEMA_VERSION:
            raise _Damaged(f"schema version {version}, this program reads {_SCHEMA_VERSION}")
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise _Damaged("the database is damaged")
        _check_tables(db)
    except BaseException:
        db.close()
        raise
    return db


class _Damaged(sqlite3.DatabaseError):
    """Found by us, not by SQLite."""


def _check_tables(db: sqlite3.Connection) -> None:
    """Read everything once: what can't be read now would end delivery later."""
    for statement in (
        'SELECT slot + 0, segment + 0, "offset" + 0, skip + 0 FROM cursor',
        "SELECT name, value FROM memory",
        "SELECT name, value + 0 FROM counter",
    ):
        try:
            db.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_ERROR:  # no such table or column
                raise _Damaged(str(error)) from error
            raise


def _code(error: sqlite3.Error) -> int | None:
    return getattr(error, "sqlite_errorcode", None)


def _is_damage(error: Exception, path: Path) -> bool:
    """Whether the file is bad, or only can't be used now: locked, no room, no file descriptor."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    if _code(error) is None:  # the module's own: a text in it is no UTF-8
        return True
    if _code(error) != sqlite3.SQLITE_READONLY:
        return False
    # Bytes 18 and 19 are the versions that may write and read the file; above 2 SQLite refuses.
    with path.open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and max(header[18], header[19]) > 2
