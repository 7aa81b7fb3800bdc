"""Connections to a PostgreSQL server, which later batches reuse."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from pixelfast.config import PostgresDestination
from pixelfast.deliver.outcomes import Held, Rejected, Retry
from pixelfast.deliver.postgres.failures import outcome_of_failure
from pixelfast.tls import Tls, new_context

__all__ = ["Connections", "NoConnection"]

_MAX_IDLE_S = 60.0  # firewalls forget connections that are idle for minutes
_CLOSE_S = 2.0

InThread = Callable[..., Awaitable[Any]]


class _LostConnections(logging.Filter):
    """Omit log records about lost connections whose errors asyncpg does not retrieve.

    If the server ends a connection between two statements, asyncpg raises an error for the second
    one but leaves another error in a future, which the event loop would log as a bug.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_left = record.getMessage().startswith("Future exception was never retrieved")
        return not (is_left and isinstance(error, asyncpg.PostgresConnectionError))


logging.getLogger("asyncio").addFilter(_LostConnections())


class NoConnection(Exception):
    """The server could not be reached, or it does not accept the connection."""

    def __init__(self, outcome: Retry | Held) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Connections:
    """Connections of one destination. Callers limit their number."""

    def __init__(
        self, settings: PostgresDestination, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._tls = Tls(settings.tls_ca, settings.tls_cert, settings.tls_key)
        self._idle: list[tuple[asyncpg.Connection[Any], float]] = []  # and since when
        is_socket = settings.host.startswith("/")
        self._has_tls = settings.tls != "disable" and not is_socket
        self.where = settings.host if is_socket else f"{settings.host}:{settings.port}"

    @asynccontextmanager
    async def borrowed(self, in_thread: InThread) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection that has no open transaction; keep it unless an error is raised.

        Raises:
            NoConnection: none could be opened; the exception has the outcome of the batch.
        """
        connection = self._take() or await self._connect(in_thread)
        is_usable = False
        try:
            yield connection
            is_usable = not connection.is_closed() and not connection.is_in_transaction()
        finally:
            if is_usable:
                self._idle.append((connection, self._clock()))
            else:
                connection.terminate()

    async def close(self) -> None:
        """Close all connections that are not lent."""
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            with contextlib.suppress(Exception):  # it is closed in any case
                await connection.close(timeout=_CLOSE_S)

    def _take(self) -> asyncpg.Connection[Any] | None:
        """Return the connection that was used last; close those that were idle for too long."""
        oldest_s = self._clock() - _MAX_IDLE_S
        while self._idle and (self._idle[0][1] < oldest_s or self._idle[0][0].is_closed()):
            self._idle.pop(0)[0].terminate()
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _connect(self, in_thread: InThread) -> asyncpg.Connection[Any]:
        settings = self._settings
        try:
            context = await in_thread(self._context) if self._has_tls else False
            # asyncpg would look for missing arguments in the environment, and for the password also
            # in ~/.pgpass.
            return await asyncpg.connect(
                host=settings.host,
                port=settings.port,
                user=settings.username,
                database=settings.database,
                password=settings.password or "",
                ssl=context,
                direct_tls=False,
                target_session_attrs=SessionAttribute.any,
                timeout=settings.connect_timeout_s,
                statement_cache_size=0,  # so that a pooler may switch sessions between transactions
                server_settings={"application_name": settings.application_name},
            )
        except TimeoutError:
            seconds = settings.connect_timeout_s
            raise NoConnection(Retry(f"{self.where}: no connection within {seconds:g} s")) from None
        except Exception as error:
            outcome = outcome_of_failure(error, self.where)
            if outcome is None:
                raise
            if isinstance(outcome, Rejected):  # no event was sent yet
                outcome = Held(outcome.reason, response=outcome.response)
            raise NoConnection(outcome) from None

    def _context(self) -> ssl.SSLContext:
        """Return the settings of TLS; the files may have been renewed."""
        context = new_context()
        self._tls.read_into(context)
        context.check_hostname = self._settings.tls == "verify-full"
        if self._settings.tls == "require":
            context.verify_mode = ssl.CERT_NONE
        return context
