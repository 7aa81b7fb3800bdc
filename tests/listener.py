"""A stream server for tests that leaves no connection open when it closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Iterations of the loop that asyncio needs from accept(2) to the callback of a connection.
ACCEPT_TURNS = 3


class Listener:
    """Run `serve` for each connection, and own connections as soon as they are accepted."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._connections: dict[asyncio.Future[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def open(self, **options: Any) -> int:
        """Listen with the options of `asyncio.start_server` and return the port."""
        if "sock" not in options:
            options |= {"host": "127.0.0.1", "port": 0}
        self._server = await asyncio.start_server(self._on_connection, **options)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            # asyncio leaks a connection if its server closes right after accepting it.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await self.drop()
            self._server.close()
            self._server = None

    async def drop(self) -> None:
        """Abort every connection, including those that were accepted but not served yet."""
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        dropped = dict(self._connections)
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)
        for writer in dropped.values():
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close their sockets in this iteration

    # A plain function runs while the connection is made; a coroutine would run later.
    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)
