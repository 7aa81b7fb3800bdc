"""Send pixels with unique ids, and remember which of them got a 200."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator


class Load:
    """Send track calls over several connections until stopped.

    A broken connection is replaced, and its pending ids count as not acknowledged.

    Args:
        pause_s: the pause of a connection between a response and its next pixel.
        fresh: the number of connections that are replaced after each pixel.
    """

    def __init__(
        self,
        port: int,
        write_key: str,
        *,
        name: str = "e",
        connections: int = 8,
        pause_s: float = 0.0,
        fresh: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self.pause_s = pause_s
        self.tls = tls
        self.write_key = write_key
        self.acked: list[str] = []
        self.sent: set[str] = set()
        self.rejected: dict[int, int] = {}
        self.broken = 0  # connections that broke or could not be made
        self._ids = (f"{name}-{n}" for n in itertools.count())
        self._connections = connections
        self._fresh = fresh
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._stopping = False
        self._tasks = [
            asyncio.create_task(self._run(is_fresh=place < self._fresh))
            for place in range(self._connections)
        ]

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until_acked(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until this many more pixels got a 200."""
        wanted = len(self.acked) + count
        async with asyncio.timeout(timeout_s):
            while len(self.acked) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def next_port(self) -> int:
        """Return the port of the next connection."""
        return self.port

    def next_target(self) -> tuple[str, str]:
        """Return the next id and its request target, and count the id as sent."""
        one = next(self._ids)
        self.sent.add(one)
        return one, f"/pixel/v1/track?writeKey={self.write_key}&anonymousId=a&event={one}"

    def on_response(self, one: str, status: int, seconds: float) -> None:
        """Record the status of an id; `seconds` last from its last byte to the whole response."""
        del seconds
        if status == 200:
            self.acked.append(one)
        else:
            self.rejected[status] = self.rejected.get(status, 0) + 1

    def on_failure(self, error: Exception, responses: int) -> None:
        """Record a connection that broke after a number of responses."""

    async def _run(self, *, is_fresh: bool) -> None:
        while not self._stopping:
            responses = 0
            try:
                async for _ in self._on_one_connection(is_fresh=is_fresh):
                    responses += 1
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.broken += 1
                self.on_failure(error, responses)
                await asyncio.sleep(0.02)

    async def _on_one_connection(self, *, is_fresh: bool) -> AsyncIterator[None]:
        began_s = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.next_port(), ssl=self.tls)
        try:
            while not self._stopping:
                one, target = self.next_target()
                sent_s = began_s if is_fresh else time.perf_counter()
                writer.write(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
                async with asyncio.timeout(20):  # unlike `wait_for`, it never loses a cancellation
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(43)
                self.on_response(one, int(head[9:12]), time.perf_counter() - sent_s)
                yield
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                if is_fresh or b"Connection: close" in head:
                    return
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # it may be broken
                await writer.wait_closed()
