"""Load a server with wrk as a closed loop, and measure the CPU time of the server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["LOAD_CORE", "SERVER_CORE", "Load", "Round", "cpu_seconds", "load", "measure"]

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]


class Round(NamedTuple):
    """The result of one round of load."""

    requests: int
    requests_per_s: float
    cpu_us: float  # of the server per request, user and system
    p50_ms: float
    p99_ms: float


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load(NamedTuple):
    """The responses to one load."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def load(
    port: int, script: Path, connections: int, seconds: float, cores: str = str(LOAD_CORE)
) -> Load:
    """Send requests over keep-alive connections, by default from the core of the load.

    Raises:
        RuntimeError: a response was not 2xx or 3xx, or a connection failed.
    """
    command = [
        *("taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s"),
        # A timeout is not a failure: uvloop accepts one connection per turn, so the last ones wait.
        *("--timeout", "30s", "-s", str(script), f"http://127.0.0.1:{port}"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT "))
    requests, duration_us, failed, not_2xx, p50_us, p99_us = map(int, line.split()[1:])
    if failed or not_2xx:
        raise RuntimeError(
            f"{failed} connections failed, {not_2xx} responses were 400 or more:\n{output}"
        )
    return Load(requests, requests / (duration_us / 1e6), p50_us / 1000, p99_us / 1000)


def measure(pid: int, port: int, script: Path, connections: int, seconds: float) -> Round:
    """Load a server of one process from the other core.

    Raises:
        RuntimeError: a response was not 2xx or 3xx, or a connection failed.
    """
    before_s = cpu_seconds(pid)
    found = load(port, script, connections, seconds)
    cpu_s = cpu_seconds(pid) - before_s
    if cpu_s <= 0:
        raise RuntimeError(f"process {pid} did nothing for {found.requests} requests")
    return Round(
        found.requests,
        found.requests_per_s,
        cpu_s * 1e6 / found.requests,
        found.p50_ms,
        found.p99_ms,
    )
