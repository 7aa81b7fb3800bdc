"""A network that misbehaves: a TCP proxy between delivery and the receiver.

Each connection gets a random `weather` from the proxy's list:

    fair         bytes are forwarded
    latency      each piece is delayed
    drip         responses are sent byte by byte
    reset        the connection is reset after some bytes
    black-hole   nothing more is forwarded, without an error
    half-close   the stream to delivery is closed at once, but the request is forwarded
    cut-response   the receiver accepts the batch; the response never arrives
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Self

from tests.listener import Listener
from tests.reliability.oracle import Oracle
from tests.waiting import wait_until

__all__ = ["WEATHERS", "FaultProxy"]

WEATHERS = ("fair", "latency", "drip", "reset", "black-hole", "half-close", "cut-response")


class FaultProxy:
    """Runs in the oracle's thread."""

    def __init__(self, oracle: Oracle, seed: int = 1) -> None:
        self.weathers: tuple[str, ...] = ("fair",)
        self.seen: dict[str, int] = dict.fromkeys(WEATHERS, 0)
        self.port = 0
        self._oracle = oracle
        self._random = random.Random(seed)
        self._listener = Listener(self._serve)

    def __enter__(self) -> Self:
        self._oracle.call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._oracle.call(self._listener.close())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def change(self, *weathers: str) -> None:
        """Use only these from now on; existing connections are dropped."""
        self.weathers = weathers
        self._oracle.call(self._listener.drop())

    def change_and_wait(self, *weathers: str) -> None:
        """Do the same as `change`, and wait for the next connection."""
        before = sum(self.seen.values())
        self.change(*weathers)
        wait_until(lambda: sum(self.seen.values()) > before, "another connection")

    async def _open(self) -> None:
        self.port = await self._listener.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather = self._random.choice(self.weathers)
        self.seen[weather] += 1
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self._oracle.receiver_port
            )
            there = asyncio.create_task(self._pump(reader, far_writer, weather, is_response=False))
            back = asyncio.create_task(self._pump(far_reader, writer, weather, is_response=True))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                if weather == "half-close":
                    await asyncio.wait({there}, timeout=3)
            finally:
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    with contextlib.suppress(OSError):
                        each.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        weather: str,
        *,
        is_response: bool,
    ) -> None:
        """Forward bytes from one side to the other until one of them or the weather ends this."""
        left = self._random.randrange(1, 20_000)  # bytes until a reset
        if weather == "half-close" and is_response:
            writer.write_eof()
            return
        while data := await reader.read(4096):
            if weather == "latency":
                await asyncio.sleep(self._random.uniform(0.0, 0.05))
            elif weather == "black-hole":
                await asyncio.sleep(3600)
            elif weather == "cut-response" and is_response:
                _reset(writer)
                return
            elif weather == "reset":
                left -= len(data)
                if left <= 0 or is_response:
                    _reset(writer)
                    return
            if weather == "drip" and is_response:
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.002)
            else:
                writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
