"""Cost of a pixel in pixelfast, nginx, other servers and the bare event loop."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.corpus import write_wrk_script
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.rivals.launch import COMMANDS, build_go, check_events, count_lines, floor, rival
from benchmarks.servers import Running, collector, nginx, stored_events
from benchmarks.wrk import Round, measure

__all__ = ["run"]

METHOD = """\
Each server is one process on one core; wrk (one thread, keep-alive connections) runs on the
other. The load is 1,000 pixels like the documented track call, with ten headers. The servers take
turns in each round, so that a drift of the machine affects all of them; each is started and
warmed up before it is measured. The Python servers are configured for speed as their
documentation advises: one worker, uvloop, httptools where possible, no access log. CPU is the
user and system time of all threads of the server process, from /proc/PID/stat. `core` is the
share of its core that this amounts to: if it is well below 100 %, the load or the disk limits the
requests/s. A response with a status of 400 or more is an error, and so is an event that had a 200
and is missing in the spool or in the server's file. The first event must have the content that
pixelfast would write. The requests are as nginx passes them, without a Connection header. Latency
is measured from the request, so for new connections it includes the wait for their acceptance:
uvloop accepts one connection per turn. The figures are medians, with the minimum and the maximum in
parentheses."""

CONNECTIONS = (64, 256)


class Server(NamedTuple):
    """A server that is measured."""

    does: str
    start: Callable[[Path], AbstractContextManager[Running]]
    stored: Callable[[Path], int] | None  # number of stored events; None if none are stored


_DECODES = "pixelfast's decoder, buffered write, no sync"
_PLAIN = "straightforward code of its language, buffered write, no sync"
NGINX = "nginx"
SERVERS = {
    NGINX: Server(
        "`empty_gif` and a buffered access log: decodes nothing, no sync",
        nginx,
        lambda folder: count_lines(folder / "access.log"),
    ),
    "floor": Server("uvloop alone: a fixed response for each blank line", floor(), None),
    "floor + httptools": Server(
        "the same, parsed by httptools with header callbacks in Python", floor("--parse"), None
    ),
    "pixelfast": Server(
        "`pixelfast collect`: each event is synced before its response", collector, stored_events
    ),
    **{
        name: Server(does, rival(name), check_events)
        for name, does in {
            "granian": f"ASGI by hand on Granian (Rust): {_DECODES}",
            "uvicorn": f"ASGI by hand on uvicorn: {_DECODES}",
            "blacksheep": f"BlackSheep on uvicorn: {_DECODES}",
            "aiohttp": f"aiohttp's server: {_DECODES}",
            "fastapi": f"FastAPI on uvicorn: {_DECODES}",
            "fastapi plain": f"FastAPI on uvicorn: {_PLAIN}",
            "go": f"net/http, GOMAXPROCS=1: {_PLAIN}",
        }.items()
    },
}
assert SERVERS.keys() >= COMMANDS.keys()
Results = dict[str, dict[int, list[Round]]]


def run(rounds: int = 5, seconds: int = 2) -> Section:
    """Measure, and print each result at once; the figures are rounds by server and connections."""
    print_head(__doc__ or "", METHOD)
    servers = dict(SERVERS)
    if not build_go():
        print("  no Go toolchain here: its server is left out\n")
        del servers["go"]
    results: Results = {name: {count: [] for count in CONNECTIONS} for name in servers}
    responses = 0
    for number in range(rounds):
        for name, server in servers.items():
            responses += _round(number, name, server, seconds, results[name])
    text = _table(results)
    print("\n" + text)
    print(f"\n{responses:,} pixels received a 200, and none of their events is missing.")
    figures: dict[str, Any] = {
        name: {str(count): [each._asdict() for each in own] for count, own in of_name.items()}
        for name, of_name in results.items()
    }
    return Section(text, figures)


def _round(
    number: int, name: str, server: Server, seconds: int, results: dict[int, list[Round]]
) -> int:
    """Measure one round, and check that a server that stores events has stored them."""
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as folder:
        data, script = Path(folder) / "data", Path(folder) / "pixels.lua"
        with server.start(data) as running:
            write_wrk_script(script, running.write_key)
            responses = measure(running.pid, running.port, script, 64, 1).requests
            for connections, own in results.items():
                one = measure(running.pid, running.port, script, connections, seconds)
                own.append(one)
                responses += one.requests
                print(
                    f"  round {number + 1} c{connections:<4} {name:18} "
                    f"{one.requests_per_s:9,.0f}/s {one.cpu_us:7.2f} µs "
                    f"p50 {one.p50_ms:.2f} p99 {one.p99_ms:.2f} ms",
                    flush=True,
                )
        if server.stored and (stored := server.stored(data)) < responses:
            raise RuntimeError(
                f"{name}: {responses:,} events received a 200, {stored:,} are stored"
            )
    return responses


def _table(results: Results) -> str:
    head = "server, connections, requests/s, CPU µs/request, core, p50 ms, p99 ms, CPU : nginx"
    rows = []
    for count in CONNECTIONS:
        base = results[NGINX][count]
        for name, of_name in results.items():
            own = of_name[count]
            pairs = list(zip(own, base, strict=True))
            rows.append(
                (
                    name,
                    count,
                    spread([each.requests_per_s for each in own], 0),
                    spread([each.cpu_us for each in own]),
                    f"{median(each.cpu_us * each.requests_per_s for each in own) / 1e4:.0f} %",
                    f"{median(each.p50_ms for each in own):.2f}",
                    f"{median(each.p99_ms for each in own):.2f}",
                    spread([each.cpu_us / other.cpu_us for each, other in pairs]),
                    spread([each.requests_per_s / other.requests_per_s for each, other in pairs]),
                )
            )
    does = "\n".join(f"- **{name}**: {SERVERS[name].does}" for name in results)
    return f"{table([*head.split(', '), 'requests/s : nginx'], rows)}\n\n{does}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    run(options.rounds, options.seconds)
