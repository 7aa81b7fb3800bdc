"""The stream server of the tests closes every connection when it stops."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import ExitStack, suppress

import pytest

from tests.listener import ACCEPT_TURNS, Listener


@pytest.mark.parametrize("turns", range(2 * ACCEPT_TURNS))
def test_no_connection_is_left_open(turns: int) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        listener = Listener(serve)
        port = await listener.open()
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            await listener.close()
            for client in clients:
                client.settimeout(5.0)
                with suppress(ConnectionResetError):
                    assert b"" == client.recv(1)

    asyncio.run(main())
    gc.collect()  # pytest fails the test for a transport that was never closed
