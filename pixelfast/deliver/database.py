"""Small SQLite files that must not lose anything, and must not keep delivery from starting.

A rollback journal (`journal_mode=TRUNCATE`, `synchronous=FULL`) and one connection: versions 3.7.0
to 3.51.2 can corrupt a database in WAL mode, and distributions ship some of them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from pixelfast.spool.datadir import make_directory, sync_directory

__all__ = ["open_database"]

_log = structlog.get_logger("deliver")
_BUSY_S = 5.0
_CACHE_KIB = 256  # of each destination's databases, by default; SQLite's own default is 2 MB
_PAGE_BYTES = 4096
Migrations = Mapping[int, Sequence[str]]


def open_database(
    path: Path,
    schema: str,
    version: int,
    verify: Callable[[sqlite3.Connection], object],
    migrations: Migrations = MappingProxyType({}),
    cache_kib: int = _CACHE_KIB,
    page_bytes: int = _PAGE_BYTES,
) -> sqlite3.Connection:
    """Open a database, made where it is missing; a damaged one is set aside and a new one begun.

    `verify` reads everything once: what can't be read now would end delivery later. `migrations`:
    by the version that a database has, the statements that lead to the next version. `page_bytes`
    is for a file that is made.

    Raises:
        sqlite3.Error: it can't be used now, which says nothing of what is in it: locked, no room.
    """
    make_directory(path.parent)
    try:
        return _open(path, schema, version, verify, migrations, cache_kib, page_bytes)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not _is_damage(error, path):
            raise
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
        _log.error("database_damaged", path=str(path), error=str(error), set_aside=aside.name)
        path.replace(aside)
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}-journal").unlink()
        sync_directory(path.parent)
        return _open(path, schema, version, verify, migrations, cache_kib, page_bytes)


def _open(
    path: Path,
    schema: str,
    version: int,
    verify: Callable[[sqlite3.Connection], object],
    migrations: Migrations,
    cache_kib: int,
    page_bytes: int,
) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA page_size = {page_bytes}")  # of a new file; others stay as they are
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
        elif found in migrations:
            _migrate(db, migrations)
        elif found != version:
            raise _Damaged(f"schema version {found}, this program reads {version}")
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise _Damaged("the database is damaged")
        try:
            verify(db)
        except msgspec.DecodeError as error:
            raise _Damaged(str(error)) from error
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, migrations: Migrations) -> None:
    """Bring a database up to date, whole or not at all; another process may do so meanwhile."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        while (found := db.execute("PRAGMA user_version").fetchone()[0]) in migrations:
            for statement in migrations[found]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {found + 1}")


class _Damaged(sqlite3.DatabaseError):
    """Found by us, not by SQLite."""


def _code(error: sqlite3.Error) -> int | None:
    return getattr(error, "sqlite_errorcode", None)


def _is_damage(error: Exception, path: Path) -> bool:
    """Whether the file is bad, or only can't be used now: locked, no room, no file descriptor."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    if _code(error) is None:  # the module's own: a text in it is no UTF-8
        return True
    if _code(error) == sqlite3.SQLITE_ERROR:  # no such table, unsupported file format
        return True
    if _code(error) != sqlite3.SQLITE_READONLY:
        return False
    # Bytes 18 and 19 are the versions that may write and read the file; above 2 SQLite fails.
    with path.open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and max(header[18], header[19]) > 2
