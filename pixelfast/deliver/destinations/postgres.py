"""A PostgreSQL table; a batch is one transaction, and events that are stored are skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import asyncpg

from pixelfast.config import PostgresDestination
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial, Retry
from pixelfast.deliver.postgres.connections import Connections, NoConnection
from pixelfast.deliver.postgres.failures import (
    error_message,
    is_of_rows,
    lacks_index,
    outcome_of_failure,
    rejected,
)
from pixelfast.deliver.postgres.rows import DELIMITER, NULL, QUOTE, numbered_rows, plain_rows
from pixelfast.deliver.postgres.statements import DOUBTFUL, STAGED, Statements
from pixelfast.deliver.sender import RemoteSender

__all__ = ["PostgresSender"]

_PIECE_BYTES = 2**18  # of the rows, copied into the send buffer at once
_MADE_AT_ONCE_BYTES = 2**18  # of a batch; the rows of a larger one are made in the thread

_Connection: TypeAlias = "asyncpg.Connection[Any]"  # only the stubs are generic


class PostgresSender(RemoteSender):
    """Copy a batch into a temporary table, and insert its events from there.

    COPY, INSERT … ON CONFLICT DO NOTHING and COMMIT are one transaction. The response to COMMIT
    says that the events are durable, because `synchronous_commit` is not off. If a connection is
    lost, the transaction may have been committed or not; a retry then inserts only what is missing.

    The server parses the events. If one of them is bad, the transaction is repeated with statements
    that find all bad events and store the others.
    """

    def __init__(self, settings: PostgresDestination) -> None:
        self.limits = BatchLimits(settings.max_events, settings.max_bytes, settings.max_age_s)
        self.concurrency = settings.concurrency
        self.retry_first_s, self.retry_most_s = settings.retry_first_s, settings.retry_most_s
        self._timeout_s = settings.timeout_s
        self._connections = Connections(settings)
        self._statements = Statements(settings.table, settings.timeout_s)
        self._conflict = Statements.CONFLICTS[0]

    async def open(self, memory: dict[str, object]) -> None:  # noqa: ARG002 - nothing to remember
        await self.close()

    async def close(self) -> None:
        await self._connections.close()

    async def attempt(self, batch: Batch) -> Outcome:
        where = self._connections.where
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(batch)
        except NoConnection as error:
            return error.outcome
        except TimeoutError:
            return Retry(f"{where}: not stored within {self._timeout_s:g} s")
        except Exception as error:
            outcome = outcome_of_failure(error, where)
            if outcome is None:
                raise
            return outcome

    async def _send(self, batch: Batch) -> Outcome:
        rows = await self._rows(plain_rows, batch)
        async with self._connections.borrowed(self.in_thread) as connection:
            try:
                return await self._store(connection, batch, rows)
            except asyncpg.PostgresError as error:
                if lacks_index(error):
                    return await self._store_by_other_index(connection, batch, rows)
                if not is_of_rows(error):
                    raise
                await connection.execute(Statements.ROLLBACK)
                if batch.events == 1:
                    return rejected(error.sqlstate or "", error_message(error))
            return await self._store_good_ones(connection, batch)

    async def _store(self, connection: _Connection, batch: Batch, rows: bytes) -> Outcome:
        """Store a batch without bad events."""
        await connection.execute(self._statements.begin)
        await self._copy(connection, STAGED, ("source", "event"), batch, rows)
        await connection.execute(self._statements.insert(self._conflict))
        return Accepted()

    async def _store_by_other_index(
        self, connection: _Connection, batch: Batch, rows: bytes
    ) -> Outcome:
        """Use the unique index of the other kind from now on, if the table has it."""
        before = self._conflict
        (self._conflict,) = (each for each in Statements.CONFLICTS if each != before)
        await connection.execute(Statements.ROLLBACK)
        try:
            return await self._store(connection, batch, rows)
        except asyncpg.PostgresError as error:
            if lacks_index(error):
                self._conflict = before
            elif is_of_rows(error):
                await connection.execute(Statements.ROLLBACK)
                return await self._store_good_ones(connection, batch)
            raise

    async def _store_good_ones(self, connection: _Connection, batch: Batch) -> Outcome:
        """Store the good events of a batch, and reject the others with the server's message.

        If that fails because of the events as well, for example at COMMIT by a deferred constraint,
        the batch is rejected as a whole and divided.
        """
        rows = await self._rows(numbered_rows, batch)
        await connection.execute(self._statements.begin_doubtful)
        await self._copy(connection, DOUBTFUL, ("n", "source", "event"), batch, rows)
        await connection.execute(self._statements.sort_out(self._conflict, batch.events))
        bad = await connection.fetch(Statements.READ_REJECTED)
        await connection.execute(Statements.COMMIT)
        if not bad:
            return Accepted()
        return Partial.of({row["n"]: rejected(row["code"], row["said"]) for row in bad})

    async def _copy(
        self,
        connection: _Connection,
        table: str,
        columns: tuple[str, ...],
        batch: Batch,
        rows: bytes,
    ) -> None:
        """Copy rows into a temporary table.

        Raises:
            asyncpg.PostgresError: an error of the server, or a wrong number of rows.
        """

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(rows), _PIECE_BYTES):
                yield rows[start : start + _PIECE_BYTES]

        status = await connection.copy_to_table(
            table,
            schema_name="pg_temp",
            columns=columns,
            source=pieces(),
            format="csv",
            delimiter=DELIMITER,
            quote=QUOTE,
            null=NULL,
        )
        if status != f"COPY {batch.events}":
            raise asyncpg.BadCopyFileFormatError(f"{status}; expected {batch.events} rows")

    async def _rows(self, make: Callable[[Batch], bytes], batch: Batch) -> bytes:
        if batch.size_bytes <= _MADE_AT_ONCE_BYTES:
            rows = make(batch)
        else:
            rows = await self.in_thread(make, batch)
        assert isinstance(rows, bytes)
        return rows
