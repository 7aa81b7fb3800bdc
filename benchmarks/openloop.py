"""Offer a constant load, and count each latency from the time when its request was due.

A closed loop sends the next request after the response to the last one. If a server stops for a
second, it gets no requests meanwhile, and one slow response is recorded instead of thousands. Here,
each request is due at a fixed time. If all connections are busy, it waits, and the wait is part of
its latency (a correction for coordinated omission).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from typing import NamedTuple

from benchmarks.corpus import HEADERS, targets
from benchmarks.wrk import LOAD_CORE

__all__ = ["Offered", "connect", "offer", "requests"]

WARM_UP_S = 0.5
PATIENCE_S = 15.0  # for the responses to requests that were due
SENT_A_TURN = 64
_OK = b"HTTP/1.1 200 "
_READ_BYTES = 4096
_PR_SET_TIMERSLACK = 29


class Offered(NamedTuple):
    """The outcome of one round of load."""

    offered_per_s: float
    responses_per_s: float  # while requests became due
    responses: int  # in total, including the warm-up
    p50_ms: float
    p99_ms: float
    p999_ms: float
    most_ms: float
    idle_share: float  # share of time that the generator waited; near 0 it is the bottleneck


def requests(write_key: str) -> list[bytes]:
    """Return the requests of the load, which are those that wrk sends."""
    head = "".join(f"{name}: {text}\r\n" for name, text in HEADERS.items())
    return [f"GET {target} HTTP/1.1\r\n{head}\r\n".encode() for target in targets(write_key)]


def connect(port: int, request: bytes) -> tuple[socket.socket, int]:
    """Open a connection; return it and the length of its first response.

    All responses have the same length.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(request)
    data = b""
    length = sys.maxsize
    while len(data) < length:
        data += (piece := sock.recv(_READ_BYTES))
        head, found, _ = data.partition(b"\r\n\r\n")
        if not piece or (found and not head.startswith(_OK)):
            raise RuntimeError(f"not the expected response: {data[:200]!r}")
        if found:
            at = head.lower().index(b"content-length: ") + 16
            length = len(head) + 4 + int(head[at:].split(b"\r\n", 1)[0])
    return sock, length


class Load:
    """A load generator: a loop over keep-alive connections, one request at a time on each."""

    def __init__(self, port: int, write_key: str, connections: int) -> None:
        self._requests = requests(write_key)
        self._epoll = select.epoll()
        self._free: deque[int] = deque()
        self._sockets = []
        self._partial: dict[int, bytes] = {}
        for _ in range(connections):
            sock, self._response_bytes = connect(port, self._requests[0])
            sock.setblocking(False)
            self._epoll.register(sock, select.EPOLLIN | select.EPOLLET)
            self._sockets.append(sock)
            self._free.append(sock.fileno())

    def run(self, rate: float, seconds: float) -> Offered:
        """Offer `rate` requests a second; 0: a closed loop, no connection is left idle.

        Raises:
            RuntimeError: a response was not 200, or did not arrive.
        """
        free, requests, whole, length = (
            self._free,
            self._requests,
            self._whole,
            self._response_bytes,
        )
        poll, clock, read, write = self._epoll.poll, time.perf_counter, os.read, os.write
        latencies, due_by_fd = array("d"), dict.fromkeys(free, 0.0)
        interval_s = 1 / rate if rate else 0.0
        sent = responses = in_time = 0
        idle_s = 0.0
        began_s = due_s = now_s = clock()
        counted_s = began_s + WARM_UP_S
        end_s = counted_s + seconds
        while due_s < end_s or responses < sent:
            # Limited, so that responses that have arrived do not wait for long.
            for _ in range(min(len(free), SENT_A_TURN)):
                if due_s > now_s or due_s >= end_s:
                    break
                fd = free.popleft()
                request = requests[sent % 1000]
                if write(fd, request) != len(request):
                    raise RuntimeError("a request was sent in part")
                due_by_fd[fd] = due_s
                sent += 1
                due_s = began_s + sent * interval_s if rate else now_s
            ready = poll(0)
            now_s = clock()
            for fd, _ in ready:
                data = read(fd, _READ_BYTES)
                if (len(data) == length and data.startswith(_OK)) or whole(fd, data):
                    if (due := due_by_fd[fd]) >= counted_s:
                        latencies.append(now_s - due)
                    in_time += counted_s <= now_s < end_s
                    responses += 1
                    free.append(fd)
            if not ready:
                idle_s += self._wait(due_s - now_s if free and due_s < end_s else 1.0)
                now_s = clock()
            if not rate:
                due_s = now_s
            if now_s > end_s + PATIENCE_S:
                raise RuntimeError(
                    f"{sent - responses:,} of {sent:,} requests received no response"
                )
        return Offered(
            rate or in_time / seconds,
            in_time / seconds,
            responses + len(self._sockets),
            *_percentiles_ms(latencies),
            idle_s / (clock() - began_s),
        )

    def _wait(self, most_s: float) -> float:
        """Sleep until a response arrives; return the time slept.

        Epoll itself sleeps whole milliseconds.

        Looking again and again instead would take this core from the kernel, which serves the
        server's disk and network there: its worst latencies grew.
        """
        before_s = time.perf_counter()
        select.select((self._epoll,), (), (), max(0.0, most_s))
        return time.perf_counter() - before_s

    def _whole(self, fd: int, data: bytes) -> bool:
        """Return whether a response that arrived in parts is complete."""
        piece, data = data, self._partial.pop(fd, b"") + data
        if not piece or len(data) > self._response_bytes or not data.startswith(_OK[: len(data)]):
            raise RuntimeError(f"not the expected response: {data[:200]!r}")
        if len(data) < self._response_bytes:
            self._partial[fd] = data
        return len(data) == self._response_bytes


def _percentiles_ms(latencies: array[float]) -> tuple[float, float, float, float]:
    ordered = sorted(latencies)
    p50, p99, p999 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99, 0.999))
    return p50, p99, p999, ordered[-1] * 1e3


def offer(port: int, write_key: str, rate: float, seconds: float, connections: int) -> Offered:
    """Run one round of load in a separate process on the other core."""
    options = {"port": port, "key": write_key, "rate": rate, "seconds": seconds}
    words = [f"--{name}={value}" for name, value in options.items()]
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.openloop"]
    output = subprocess.run(
        [*command, *words, f"--connections={connections}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Offered(**json.loads(output.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default="wk-demo", help="write key of the pixels")
    parser.add_argument("--rate", type=float, default=0, help="requests a second; 0: closed loop")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=256)
    options = parser.parse_args()
    load = Load(options.port, options.key, options.connections)
    gc.disable()  # a collection would pause the generator
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # otherwise sleeps end 50 µs late
    print(json.dumps(load.run(options.rate, options.seconds)._asdict()))


if __name__ == "__main__":
    main()
