"""Load a server with wrk as a closed loop, and measure the CPU time of the server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["LOAD_CORE", "SERVER_CORE", "Round", "cpu_seconds", "measure"]

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


def measure(pid: int, port: int, script: Path, connections: int, seconds: int) -> Round:
    """Load a server with keep-alive connections from the other core.

    Raises:
        AssertionError: a response was not 2xx or 3xx, or a connection failed.
    """
    before = cpu_seconds(pid)
    command = [
        *("taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
        # A timeout is not a failure: uvloop accepts one connection per turn, so the last ones wait.
        *("--timeout", "30s", "-s", str(script), f"http://127.0.0.1:{port}"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu_s = cpu_seconds(pid) - before
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT "))
    requests, duration_us, failed, not_2xx, p50_us, p99_us = map(int, line.split()[1:])
    assert failed == 0, f"{failed} connections failed:\n{output}"
    assert not_2xx == 0, f"{not_2xx} responses were 400 or more:\n{output}"
    assert cpu_s > 0, f"process {pid} did nothing for {requests} requests"
    return Round(
        requests,
        requests / (duration_us / 1e6),
        cpu_s * 1e6 / requests,
        p50_us / 1000,
        p99_us / 1000,
    )
