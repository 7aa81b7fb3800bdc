"""A PostgreSQL table that receives a row for each event."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS", "Column", "create_statements", "quoted", "quoted_table"]


class Column(NamedTuple):
    """A column, and the expression of its value.

    The expression may use `e`, the event as jsonb, and `source`, the name of its source.
    """

    name: str
    type: str
    value: str
    is_required: bool = False
    meaning: str = ""


def _text(name: str, field: str, *, is_required: bool = False) -> Column:
    return Column(name, "text", f"e->>'{field}'", is_required, field)


def _time(name: str, field: str, *, is_required: bool = False) -> Column:
    return Column(name, "timestamptz", f"(e->>'{field}')::timestamptz", is_required, field)


def _json(name: str, field: str) -> Column:
    return Column(name, "jsonb", f"e->'{field}'", meaning=field)


_OF_FIELDS = (
    _text("message_id", "messageId", is_required=True),
    _time("received_at", "receivedAt", is_required=True),
    _text("type", "type", is_required=True),
    _text("event", "event"),
    _text("name", "name"),
    _text("user_id", "userId"),
    _text("anonymous_id", "anonymousId"),
    _time("original_timestamp", "originalTimestamp"),
    _time("sent_at", "sentAt"),
    _time("timestamp", "timestamp"),
    _json("properties", "properties"),
    _json("context", "context"),
)
_FIELDS = ",".join(column.meaning for column in _OF_FIELDS)
COLUMNS = (
    *_OF_FIELDS,
    Column("source", "text", "source", meaning="name of the source in pixelfast's settings"),
    Column("rest", "jsonb", f"e - '{{{_FIELDS}}}'::text[]", meaning="all other fields"),
)

_TABLE = """\
CREATE TABLE {table} (
{columns}
  PRIMARY KEY (message_id)
);
CREATE INDEX ON {table} USING brin (received_at);
CREATE INDEX ON {table} (event, received_at);
CREATE INDEX ON {table} (user_id, received_at);
"""
_GRANTS = """
-- The user does not own the table. ON CONFLICT reads the columns of the unique index.
{schema}GRANT INSERT, SELECT (message_id, received_at) ON {table} TO {user};
GRANT TEMPORARY ON DATABASE {database} TO {user};
"""
_PARTITIONS = """
-- To drop old events quickly, partition the table by received_at. Replace the last line of CREATE
-- TABLE by the following, create the partitions of future months in time, and keep a default one:
--   PRIMARY KEY (message_id, received_at)
-- ) PARTITION BY RANGE (received_at);
-- CREATE TABLE {january} PARTITION OF {table}
--   FOR VALUES FROM ('2027-01-01 00:00Z') TO ('2027-02-01 00:00Z');
-- CREATE TABLE {default} PARTITION OF {table} DEFAULT;
-- A batch that is sent again is still stored once, because it has the same received_at. A pixel
-- that a client sends again is stored again.
"""


def quoted(identifier: str) -> str:
    """Return an identifier as SQL writes it.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + identifier.replace('"', '""') + '"'


def quoted_table(table: str) -> str:
    """Return the name of a table, with or without its schema, as SQL writes it.

    >>> quoted_table("analytics.events")
    '"analytics"."events"'
    """
    return ".".join(map(quoted, table.split(".")))


def create_statements(table: str, username: str = "", database: str = "") -> str:
    """Return statements that create the table; with a user name, also those for its permissions."""
    *schema, name = table.split(".")
    parts = [_TABLE.format(table=quoted_table(table), columns="\n".join(map(_line, COLUMNS)))]
    if username:
        user = quoted(username)
        usage = f"GRANT USAGE ON SCHEMA {quoted(schema[0])} TO {user};\n" if schema else ""
        of_table = {"table": quoted_table(table), "user": user, "database": quoted(database)}
        parts.append(_GRANTS.format(schema=usage, **of_table))

    def sibling(suffix: str) -> str:
        return ".".join(map(quoted, [*schema, f"{name}_{suffix}"]))

    parts.append(
        _PARTITIONS.format(
            table=quoted_table(table), january=sibling("2027_01"), default=sibling("default")
        )
    )
    return "".join(parts)


def _line(column: Column) -> str:
    declared = f"{quoted(column.name):<20} {column.type}{' NOT NULL' * column.is_required},"
    return f"  {declared:<42} -- {column.meaning}"
