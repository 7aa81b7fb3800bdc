"""Response time."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.corpus import write_wrk_script
from benchmarks.machine import print_head
from benchmarks.openloop import Offered, connect, offer, requests
from benchmarks.report import Section, spread, table
from benchmarks.servers import Running, collector, nginx, stored_events
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, Round, measure
from pixelfast.spool import DataDir, SlotFiles

__all__ = ["run"]

METHOD = """\
Idle: one connection sends one request after the other. In the same rounds and on the same file
system, 1 KB is written and synced repeatedly by pwrite and fdatasync, into a segment as the
collector creates it, on the server's core. The figures are medians of the rounds' medians, with
the minimum and the maximum in parentheses.

Under load: each server is one process on one core. The load runs on the other and sends requests
at a constant rate over 256 keep-alive connections, each at its time, whether or not earlier
responses have arrived. The latency counts from the time at which a request was due
(benchmarks/openloop.py). The rates are shares of the maximum rate: the rate that wrk achieves
with this server and 256 connections, measured immediately before. There is a warm-up at each
rate. The figures are medians of the rounds, with the minimum and the maximum in parentheses.
"Load idle" is the generator's idle time: if it is near 0, the generator is the limit and not the
server. A response other than 200 is an error, and so is an event that had a 200 and is missing in
the spool at the end."""

CONNECTIONS = 256
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
IDLE_SAMPLES = 400
IDLE_ROUNDS = 9
BLOCK = os.urandom(1024)
Server = Callable[[Path], AbstractContextManager[Running]]
SERVERS: dict[str, Server] = {"pixelfast": collector, "nginx": nginx}


def sync_ms(folder: Path) -> float:
    """Return the median time of fdatasync after 1 KB is written where a collector would write."""
    os.sched_setaffinity(0, {SERVER_CORE})
    files = SlotFiles(DataDir.open(folder), 0, 64 * 2**20)
    segment = files.create()
    times = []
    for _ in range(IDLE_SAMPLES):
        before_s = time.perf_counter()
        os.pwrite(segment.fd, BLOCK, segment.offset)
        os.fdatasync(segment.fd)
        times.append(time.perf_counter() - before_s)
        segment.offset += len(BLOCK)
    files.retire(segment, is_sound=True)
    files.close()
    shutil.rmtree(folder)
    return median(times) * 1e3


def response_ms(server: Running) -> float:
    """Return the median time of requests that are sent one by one on one connection."""
    os.sched_setaffinity(0, {LOAD_CORE})
    texts = requests(server.write_key)
    sock, length = connect(server.port, texts[0])
    times = []
    with sock:
        for n in range(IDLE_SAMPLES):
            before_s = time.perf_counter()
            sock.sendall(texts[n % len(texts)])
            response = sock.recv(4096)
            times.append(time.perf_counter() - before_s)
            if len(response) != length or not response.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not the expected response: {response[:200]!r}")
    return median(times) * 1e3


def run_idle(rounds: int = IDLE_ROUNDS) -> Section:
    """Measure one request at a time, and the sync that it waits for."""
    latencies, syncs, floors = [], [], []
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place)
        with collector(folder / "data") as ours, nginx(folder / "nginx") as other:
            response_ms(ours)
            for _ in range(rounds):
                syncs.append(sync_ms(folder / "bare"))
                latencies.append(response_ms(ours))
                floors.append(response_ms(other))
        os.sched_setaffinity(0, cores)
        missing = (rounds + 1) * (IDLE_SAMPLES + 1) - stored_events(folder / "data")
    if missing > 0:
        raise RuntimeError(f"{missing} events with a 200 response are not stored")
    beyond = [one - sync for one, sync in zip(latencies, syncs, strict=True)]
    rows = [
        ("pixelfast, synced before the GIF", spread(latencies, 3)),
        ("one fdatasync of 1 KB", spread(syncs, 3)),
        ("pixelfast without its fdatasync", spread(beyond, 3)),
        ("nginx, no sync", spread(floors, 3)),
    ]
    text = table(("one at a time, else idle", "ms"), rows)
    print(text, flush=True)
    return Section(text, {"latency_ms": latencies, "fdatasync_ms": syncs, "nginx_ms": floors})


def run(rounds: int = 3, seconds: float = 1.5) -> Section:
    """Measure, and print each result at once; under load the figures are medians, row by row."""
    print_head(__doc__ or "", METHOD)
    idle = run_idle()
    print()
    found: dict[str, dict[float, list[Offered]]] = {name: {} for name in SERVERS}
    tops: dict[str, list[Round]] = {name: [] for name in SERVERS}
    checks: list[Offered] = []
    for number in range(rounds):
        for name, server in SERVERS.items():
            with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
                folder = Path(place)
                with server(folder / "data") as running:
                    script = folder / "pixels.lua"
                    write_wrk_script(script, running.write_key)
                    responses = measure(running.pid, running.port, script, 64, 1).requests
                    top = measure(running.pid, running.port, script, CONNECTIONS, 2)
                    responses += top.requests
                    tops[name].append(top)
                    target = (running.port, running.write_key)
                    if server is collector:
                        checks.append(offer(*target, 0, seconds, CONNECTIONS))
                        responses += checks[-1].responses
                    for share in SHARES:
                        one = offer(*target, share * top.requests_per_s, seconds, CONNECTIONS)
                        responses += one.responses
                        found[name].setdefault(share, []).append(one)
                        print(
                            f"  round {number + 1} {name:9} {share:4.0%} of "
                            f"{top.requests_per_s:7,.0f}/s p50 {one.p50_ms:8.2f} p99 "
                            f"{one.p99_ms:8.2f} p99.9 {one.p999_ms:8.2f} ms, load idle "
                            f"{one.idle_share:4.0%}",
                            flush=True,
                        )
                if server is collector and (stored := stored_events(folder / "data")) < responses:
                    raise RuntimeError(
                        f"{responses:,} events received a 200, {stored:,} are stored"
                    )
    loaded = _table(found)
    check, checked = _check(checks, tops["pixelfast"])
    print(f"\n{loaded}\n\n{checked}")
    open_loop = {name: _rows(shares) for name, shares in found.items()}
    figures = {"idle": idle.figures, "open_loop": open_loop, "check": check}
    return Section(f"{idle.text}\n\n{loaded}\n\n{checked}", figures)


def _rows(shares: dict[float, list[Offered]]) -> list[dict[str, float]]:
    """Return the medians of a server's rounds, and the p99 of each."""
    rows: list[dict[str, Any]] = []
    for share, own in shares.items():
        middle = {
            name: median(getattr(each, name) for each in own)
            for name in Offered._fields
            if name != "responses"
        }
        rows.append({"share": share, **middle, "p99_ms_by_round": [each.p99_ms for each in own]})
    return rows


def _table(found: dict[str, dict[float, list[Offered]]]) -> str:
    head = "server, of top rate, offered/s, responses/s, p50 ms, p99 ms, p99.9 ms, load idle"
    rows = []
    for name, shares in found.items():
        for share, own in shares.items():
            rows.append(
                (
                    name,
                    f"{share:.0%}",
                    f"{median(each.offered_per_s for each in own):,.0f}",
                    f"{median(each.responses_per_s for each in own):,.0f}",
                    spread([each.p50_ms for each in own]),
                    spread([each.p99_ms for each in own]),
                    spread([each.p999_ms for each in own]),
                    f"{median(each.idle_share for each in own):.0%}",
                )
            )
    return table(head.split(", "), rows)


def _check(ours: list[Offered], theirs: list[Round]) -> tuple[dict[str, list[float]], str]:
    """Compare the generator, as a closed loop, with wrk in the same rounds."""
    check = {
        "requests_per_s": [each.responses_per_s for each in ours],
        "p50_ms": [each.p50_ms for each in ours],
        "wrk_requests_per_s": [each.requests_per_s for each in theirs],
        "wrk_p50_ms": [each.p50_ms for each in theirs],
    }
    text = (
        f"Checked against wrk: as a closed loop on pixelfast with {CONNECTIONS} connections the "
        f"generator has a p50 of {spread(check['p50_ms'])} ms at "
        f"{spread(check['requests_per_s'], 0)} requests/s, wrk {spread(check['wrk_p50_ms'])} ms at "
        f"{spread(check['wrk_requests_per_s'], 0)}."
    )
    return check, text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    run(options.rounds, options.seconds)
