"""The tables of the database of dead letters, and the way from earlier versions to them."""

from __future__ import annotations

__all__ = ["MIGRATIONS", "SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION = 4
_SIZE = (
    "size_bytes INTEGER GENERATED ALWAYS AS (length(event) + length(reason) + length(answer))"
    " VIRTUAL"
)
# The table `source` is updated in the transactions that change dead letters, because delivery and
# the commands change them at the same time. New ones are counted as they are added, all other
# changes by triggers.
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
# A row has one or more dead letters, see `bundles`. Long columns are last, because SQLite reads all
# columns before the one that it needs. SQLite uses the index `letter_replay` only for queries that
# repeat its condition.
SCHEMA = (
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
MIGRATIONS = {
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
    3: (),  # the content of `parts` has changed, see `bundles`; rows of version 3 are still read
}
