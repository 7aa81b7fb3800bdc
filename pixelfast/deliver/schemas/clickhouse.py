"""A ClickHouse table that receives a row for each event."""

from __future__ import annotations

__all__ = ["create_statements"]

# A column has the name of a field, and every event of a pixel fits. JSONEachRow stores an object in
# a String as its JSON.
_COLUMNS = (
    ("messageId", "String"),
    ("type", "LowCardinality(String)"),
    ("event", "String"),
    ("name", "String"),
    ("userId", "String"),
    ("anonymousId", "String"),
    ("receivedAt", "DateTime64(3, 'UTC')"),
    ("originalTimestamp", "DateTime64(3, 'UTC')"),
    ("sentAt", "DateTime64(3, 'UTC')"),
    ("timestamp", "DateTime64(3, 'UTC')"),
    ("properties", "String"),
    ("context", "String"),
    ("traits", "String"),
    ("channel", "String"),
    ("integrations", "String"),
    ("request_ip", "String"),
)
_TABLE = """\
CREATE TABLE {table} (
{columns}
)
-- For a replicated table: ENGINE = ReplicatedMergeTree, and without the setting below. Such a table
-- remembers the tokens of inserts by default (replicated_deduplication_window).
ENGINE = MergeTree
-- By the time at the server: clients choose `timestamp`, and each month is a partition.
PARTITION BY toYYYYMM(receivedAt)
-- Begin with the columns by which you select most.
ORDER BY (type, event, receivedAt)
-- To delete events after a year:
-- TTL toDateTime(receivedAt) + INTERVAL 1 YEAR
-- The number of inserts that are remembered, so that a retry of any of them stores no row twice.
SETTINGS non_replicated_deduplication_window = 1000
"""


def create_statements(table: str, database: str = "default") -> str:
    """Return the statement that creates the table."""
    columns = ",\n".join(f"  {f'`{name}`':<20} {kind}" for name, kind in _COLUMNS)
    return _TABLE.format(table=f"`{database}`.`{table}`", columns=columns)
