"""The statements of a transaction that stores a batch."""

from __future__ import annotations

from pixelfast.deliver.postgres.failures import OTHER_CLASSES
from pixelfast.deliver.schemas.postgres import COLUMNS, quoted, quoted_table

__all__ = ["DOUBTFUL", "REJECTED", "STAGED", "Statements"]

STAGED, DOUBTFUL, REJECTED = "pixelfast_staged", "pixelfast_doubtful", "pixelfast_rejected"

_BEGIN = f"""\
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL client_min_messages = warning;
SET LOCAL statement_timeout = {{timeout_ms}};
SELECT set_config('synchronous_commit', 'on', true)
  WHERE current_setting('synchronous_commit') = 'off';
CREATE TEMPORARY TABLE IF NOT EXISTS {STAGED} (source text, event text) ON COMMIT DELETE ROWS;
"""
_BEGIN_DOUBTFUL = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS {DOUBTFUL} (n int PRIMARY KEY, source text, event text)
  ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS {REJECTED} (n int PRIMARY KEY, code text, said text)
  ON COMMIT DELETE ROWS;
"""
# Sorted, so that concurrent transactions with the same ids cannot deadlock.
_INSERT = """\
INSERT INTO {table} ({columns})
SELECT {values} FROM (SELECT source, event::jsonb AS e FROM pg_temp.{staged} OFFSET 0) AS staged
ORDER BY (e->>'messageId') COLLATE "C"
ON CONFLICT ({conflict}) DO NOTHING;
"""
# First, an insert without rows checks the permissions, so that later errors with the code of a
# missing permission are about row-level policies. Second, the values of each event are computed,
# which finds most bad events without writing rows that VACUUM has to remove. Third, the other
# events are stored; a range that fails is halved until all of its events are stored or rejected.
_SORT_OUT = """\
DO $pixelfast$
DECLARE
  doubtful record;
  said text;
  detail text;
  violated text;
  of_table text;
  firsts int[] := ARRAY[0];
  lasts int[] := ARRAY[{last}];
  depth int := 1;
  first int;
  last int;
BEGIN
  INSERT INTO {table} ({columns})
  SELECT {values} FROM (
    SELECT source, event::jsonb AS e FROM pg_temp.{doubtful_table} WHERE false OFFSET 0
  ) AS none
  ON CONFLICT ({conflict}) DO NOTHING;
  FOR doubtful IN SELECT d.n, d.source, d.event FROM pg_temp.{doubtful_table} AS d LOOP
    BEGIN
      PERFORM {values} FROM (
        SELECT doubtful.source AS source, doubtful.event::jsonb AS e OFFSET 0
      ) AS one;
    EXCEPTION WHEN OTHERS THEN
      {diagnose}
      INSERT INTO pg_temp.{rejected_table} VALUES (doubtful.n, SQLSTATE, said);
    END;
  END LOOP;
  WHILE depth > 0 LOOP
    first := firsts[depth];
    last := lasts[depth];
    depth := depth - 1;
    BEGIN
      INSERT INTO {table} ({columns})
      SELECT {values} FROM (
        SELECT d.source, d.event::jsonb AS e FROM pg_temp.{doubtful_table} AS d
        WHERE d.n BETWEEN first AND last
          AND NOT EXISTS (SELECT FROM pg_temp.{rejected_table} AS r WHERE r.n = d.n)
        OFFSET 0
      ) AS good
      ORDER BY (e->>'messageId') COLLATE "C"
      ON CONFLICT ({conflict}) DO NOTHING;
    EXCEPTION WHEN OTHERS THEN
      {diagnose}
      IF first = last THEN
        INSERT INTO pg_temp.{rejected_table} VALUES (first, SQLSTATE, said);
      ELSE
        firsts[depth + 1] := (first + last) / 2 + 1;
        lasts[depth + 1] := last;
        firsts[depth + 2] := first;
        lasts[depth + 2] := (first + last) / 2;
        depth := depth + 2;
      END IF;
    END;
  END LOOP;
END $pixelfast$;
"""
# An error that is not caused by an event ends the transaction.
_DIAGNOSE = """\
GET STACKED DIAGNOSTICS
        said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, violated = CONSTRAINT_NAME,
        of_table = TABLE_NAME;
      IF left(SQLSTATE, 2) = ANY ('{{{classes}}}') AND SQLSTATE <> '42501'
         OR SQLSTATE = '23514' AND violated = '' AND of_table <> '' THEN
        RAISE;
      END IF;
      said := left(concat_ws(E'\\n', said, nullif(detail, '')), 1000);"""


class Statements:
    """The statements for a table.

    An event that is stored already is skipped (`ON CONFLICT`), so that a batch can be repeated. The
    unique index may be on `message_id`, or on `message_id` and `received_at` as partitioned tables
    require it; see `CONFLICTS`.
    """

    CONFLICTS = ("message_id", "message_id, received_at")
    COMMIT = "COMMIT"
    ROLLBACK = "ROLLBACK"
    READ_REJECTED = f"SELECT n, code, said FROM pg_temp.{REJECTED}"  # noqa: S608 - constants

    def __init__(self, table: str, timeout_s: float) -> None:
        self.begin = _BEGIN.format(timeout_ms=int(timeout_s * 1000) or 1)
        self.begin_doubtful = self.begin + _BEGIN_DOUBTFUL
        self._names = {
            "table": quoted_table(table),
            "columns": ", ".join(quoted(column.name) for column in COLUMNS),
            "values": ", ".join(column.value for column in COLUMNS),
        }

    def insert(self, conflict: str) -> str:
        """Return the statements that store the staged rows and commit."""
        statement = _INSERT.format(staged=STAGED, conflict=conflict, **self._names)
        return statement + self.COMMIT

    def sort_out(self, conflict: str, events: int) -> str:
        """Return the statement that stores the good ones of the doubtful rows, without a commit.

        The other rows are in `REJECTED` afterwards, each with the SQLSTATE and the server's words.
        """
        return _SORT_OUT.format(
            last=events - 1,
            diagnose=_DIAGNOSE.format(classes=",".join(sorted(OTHER_CLASSES))),
            doubtful_table=DOUBTFUL,
            rejected_table=REJECTED,
            conflict=conflict,
            **self._names,
        )
