"""A TCP proxy that cuts connections after a number of bytes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple, Self

from tests.listener import Listener

__all__ = ["Cut", "CuttingProxy"]


class Cut(NamedTuple):
    """When a connection ends: `bytes` after its start, in one direction.

    It is closed, or with `stalls` it hangs until one side closes it.
    """

    bytes: int
    is_response: bool = False
    stalls: bool = False


class CuttingProxy:
    """Forward connections to a port of loopback; each of the first ones ends by one of `cuts`.

    Attributes:
        port: its own port.
        seen: the cuts that took place.
    """

    def __init__(self, target_port: int, *cuts: Cut) -> None:
        self.port = 0
        self.seen: list[Cut] = []
        self._cuts = list(cuts)
        self._target_port = target_port
        self._listener = Listener(self._serve)

    async def __aenter__(self) -> Self:
        self.port = await self._listener.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self._cuts.pop(0) if self._cuts else None
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            ways = [(reader, far_writer, False), (far_reader, writer, True)]
            pumps = [asyncio.create_task(self._pump(*way, cut)) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in pumps:
                    each.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    with contextlib.suppress(OSError):
                        end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_response: bool,
        cut: Cut | None,
    ) -> None:
        left = float("inf")
        if cut is not None and cut.is_response is is_response:
            left = cut.bytes
        while left > 0:
            data = await reader.read(int(min(left, 65536)))
            if not data:
                return
            writer.write(data)
            await writer.drain()
            left -= len(data)
        assert cut is not None
        self.seen.append(cut)
        if cut.stalls:
            await asyncio.Event().wait()
