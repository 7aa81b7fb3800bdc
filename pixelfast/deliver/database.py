"""SQLite files that must not lose data, and must not prevent delivery from starting.

They use a rollback journal (`journal_mode=TRUNCATE`, `synchronous=FULL`) and one connection.
SQLite 3.7.0 to 3.51.2, which distributions ship, can corrupt a database in WAL mode.
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

from pixelfast.errors import DestinationError
from pixelfast.spool.datadir import make_directory, sync_directory

__all__ = ["open_database"]

_log = structlog.get_logger("deliver")
_BUSY_S = 5.0
_CACHE_KIB = 256  # per database; SQLite's default is 2 MB
_PAGE_BYTES = 4096
_NEWER_VERSIONS = 16  # versions beyond these are rather damage
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
    """Open a database, creating it if necessary; rename a damaged one and create a new one.

    `verify` reads all data once, because data that cannot be read would end delivery later.
    `migrations` maps a version to the statements that lead to the next version. `page_bytes`
    applies to a new file.

    Raises:
        sqlite3.Error: the database is not damaged but cannot be used now: it is locked, or the disk
            is full.
        DestinationError: a newer version of pixelfast wrote the database, which is not changed.
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
        db.execute(f"PRAGMA page_size = {page_bytes}")  # has no effect on existing files
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
        elif found in migrations:
            _migrate(db, migrations)
        elif version < found <= version + _NEWER_VERSIONS:
            raise DestinationError(
                f"{path} was written by a newer version of pixelfast: it has schema version"
                f" {found}, and this version supports {version}; install the newer version"
            )
        elif found != version:
            raise _Damaged(f"schema version {found}; expected {version}")
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
    """Migrate a database in one transaction; another process may do so at the same time."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        while (found := db.execute("PRAGMA user_version").fetchone()[0]) in migrations:
            for statement in migrations[found]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {found + 1}")


class _Damaged(sqlite3.DatabaseError):
    """Damage that SQLite does not detect."""


def _code(error: sqlite3.Error) -> int | None:
    return getattr(error, "sqlite_errorcode", None)


def _is_damage(error: Exception, path: Path) -> bool:
    """Whether the file is damaged, not locked or short of disk space or file descriptors."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    if _code(error) is None:  # raised by the module itself: a string is not UTF-8
        return True
    if _code(error) == sqlite3.SQLITE_ERROR:  # no such table, unsupported file format
        return True
    if _code(error) != sqlite3.SQLITE_READONLY:
        return False
    # Bytes 18 and 19 are the write and read versions; SQLite opens no file with more than 2.
    with path.open("rb") as file:
        header = file.read(20)
    return len(header) == 20 and max(header[18], header[19]) > 2
