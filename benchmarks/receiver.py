"""The destinations of the delivery benchmark: one process that answers 200 and counts what came."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvloop

from benchmarks.servers import free_port, wait_for
from benchmarks.wrk import LOAD_CORE

__all__ = ["Receiver", "receiver"]

STOP_S = 30.0


class Receiver:
    """A running receiver. Each path is a destination of its own."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    def stop(self) -> dict[str, tuple[int, int]]:
        """Stop it; by path how many requests came, and how many bytes in their bodies."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=STOP_S)
        return {path: (requests, size) for path, (requests, size) in json.loads(output).items()}


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Start one on the load's core."""
    port = free_port()
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.receiver"]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield Receiver(port, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_S)


class _Count(NamedTuple):
    requests: int = 0
    size_bytes: int = 0


class _Connection(asyncio.Protocol):
    """Reads requests with a Content-Length to their ends and answers each with 200."""

    def __init__(self, counts: dict[str, _Count]) -> None:
        self._counts = counts
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left == 0:
                    self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.lower().index(b"content-length: ", 0, end) + 16
            self._left = int(self._head[at : self._head.index(b"\r\n", at)])
            path = self._head.split(b" ", 2)[1].decode()
            before = self._counts.get(path, _Count())
            self._counts[path] = _Count(before.requests + 1, before.size_bytes + self._left)
            data, self._head = self._head[end + 4 :], b""


async def _receive(port: int) -> None:
    counts: dict[str, _Count] = {}
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: _Connection(counts), "127.0.0.1", port)
    await stop.wait()
    server.close()
    print(json.dumps(counts))


if __name__ == "__main__":
    uvloop.run(_receive(int(sys.argv[1])))
