"""Destinations for the delivery benchmarks: a process that responds with 200 and counts bodies.

With `--lags` it also samples how old events are when they arrive: the time since `receivedAt`, of
one event in 16 and at least of the first of each request. With `--store` it responds like an object
store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import uvloop

from benchmarks.servers import free_port, wait_for
from benchmarks.wrk import LOAD_CORE

__all__ = ["Received", "Receiver", "receiver", "sampled_lags_ms"]

STOP_S = 30.0
SAMPLED = 16  # one event of this many
_RECEIVED_AT = re.compile(rb'"receivedAt":"([^"]+)"')
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_STORED = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n'


class Received(NamedTuple):
    """The bodies that one path received."""

    requests: int = 0
    size_bytes: int = 0  # of bodies
    lags_ms: Sequence[float] = ()


def sampled_lags_ms(body: bytes) -> list[float]:
    """Return the ages of the sampled events of a body in ms."""
    now_s = time.time()
    found = _RECEIVED_AT.findall(body)[::SAMPLED]
    return [(now_s - datetime.fromisoformat(each.decode()).timestamp()) * 1e3 for each in found]


class Receiver:
    """A running receiver. Each path is a destination of its own."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    def stop(self) -> dict[str, Received]:
        """Stop the receiver; return what each path received."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=STOP_S)
        return {path: Received(*each) for path, each in json.loads(output).items()}


@contextmanager
def receiver(*options: str) -> Iterator[Receiver]:
    """Start a receiver on the core of the load; `options` are those of the command line."""
    port = free_port()
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.receiver"]
    process = subprocess.Popen([*command, str(port), *options], stdout=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield Receiver(port, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_S)


class _Count:
    """The same as `Received`, while it grows."""

    def __init__(self) -> None:
        self.requests = 0
        self.size_bytes = 0
        self.lags_ms: list[float] = []


class _Connection(asyncio.Protocol):
    """Read requests with a Content-Length, and respond to each with 200."""

    def __init__(self, counts: dict[str, _Count], samples_lags: bool, response: bytes) -> None:
        self._counts = counts
        self._response = response
        self._samples_lags = samples_lags
        self._head = b""
        self._left = 0
        self._path = ""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is not an asyncio.Transport

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                if self._samples_lags:
                    self._body.append(data[:taken])
                data = data[taken:]
                if self._left == 0:
                    self._transport.write(self._response)
                    if self._samples_lags:
                        self._counts[self._path].lags_ms.extend(
                            sampled_lags_ms(b"".join(self._body))
                        )
                        self._body.clear()
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.lower().index(b"content-length: ", 0, end) + 16
            self._left = int(self._head[at : self._head.index(b"\r\n", at)])
            self._path = self._head.split(b" ", 2)[1].decode()
            count = self._counts.setdefault(self._path, _Count())
            count.requests += 1
            count.size_bytes += self._left
            data, self._head = self._head[end + 4 :], b""


async def _receive(port: int, samples_lags: bool, is_store: bool) -> None:
    counts: dict[str, _Count] = {}
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    response = _STORED if is_store else _OK
    server = await loop.create_server(
        lambda: _Connection(counts, samples_lags, response), "127.0.0.1", port
    )
    await stop.wait()
    server.close()
    found = {path: (each.requests, each.size_bytes, each.lags_ms) for path, each in counts.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--lags", action="store_true", help="sample the age of events on arrival")
    parser.add_argument("--store", action="store_true", help="respond as an object store")
    options = parser.parse_args()
    uvloop.run(_receive(options.port, options.lags, options.store))
