"""Cost of a pixel as workers, connections, sources and the backlog grow."""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.backlog import fill
from benchmarks.corpus import write_wrk_script
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import collector, free_port, running, wait_for
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, cpu_seconds
from pixelfast.spool import DataDir, LogEnd

__all__ = ["run"]

METHOD = """\
The collectors sync before the GIF. The server runs on one core and wrk (one thread, keep-alive
connections) on the other, with 256 connections unless stated otherwise. Only one quantity grows
at a time. Each figure covers two seconds with all connections open and busy: CPU (user and
system, all threads of the collectors) and the events that reached the spool in that time. All
sizes take turns in each round. A response other than 200 is an error, and so is an event that had
a 200 and is missing in the spool. The figures are medians, with the minimum and the maximum in
parentheses.

- workers: `pixelfast serve` with N workers, 256 connections each, which may use both cores and
  share them with wrk. The figure is therefore the CPU per request, and two workers and wrk
  compete for the cores. Delivery waits for a destination that does not respond.
- sources: 5,000 pixels in turn, with write keys spread over all sources of the settings.
- backlog: a spool that was filled before, in a collector that accepts events as usual; nothing is
  delivered."""

CONNECTIONS = 256
WORKERS = (1, 2)
MANY_CONNECTIONS = (64, 256, 1_000, 4_000, 10_000)
SOURCES = (1, 10, 100, 1_000, 5_000)
BACKLOG = (0, 100_000, 1_000_000, 10_000_000)
PIXELS = 5_000  # that the sources share
EVENTS_A_FRAME = 1_000  # of a backlog
ALL_CORES = f"{SERVER_CORE},{LOAD_CORE}"
OPEN_S = 20.0  # for wrk to open its connections, and for a server to start
WARM_S = 0.4
OTHER_FILES = 64  # of wrk and of this process


_SERVE = """
data_dir = "{data}"
log.level = "error"
[server]
listen = ["127.0.0.1:{port}"]
admin = ""
workers = {workers}
[[sources]]
name = "demo"
write_keys = ["wk-demo"]
[[destinations]]
name = "down"
type = "http"
url = "http://127.0.0.1:9/"
"""
_SOURCE = """
[[sources]]
name = "source-{number}"
write_keys = ["{key}"]
"""


_OPEN = ("01", "08")  # TCP_ESTABLISHED, TCP_CLOSE_WAIT


class Server(NamedTuple):
    """The server under load."""

    pids: list[int]  # of its collectors
    port: int
    script: Path
    ends: list[LogEnd]  # of its slots

    def stored(self) -> int:
        """Return the number of events in the spool."""
        return sum(end.refresh()[1] for end in self.ends)

    def cpu_s(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)

    def connections(self) -> int:
        """Return the number of open connections."""
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        own = f":{self.port:04X}"
        return sum(row[1].endswith(own) and row[3] in _OPEN for row in rows)


class Size(NamedTuple):
    """One size of the dimension that grows: the server and its load."""

    count: int  # type: ignore[assignment] # not the method of tuples
    server: Server
    connections: int


class Round(NamedTuple):
    """The result of two seconds of load."""

    requests_per_s: float
    cpu_us: float


def load(size: Size, seconds: float, cores: str) -> Round:
    """Load a server and measure once all connections are open.

    Raises:
        RuntimeError: a response was not 200, a connection failed, or an event is missing.
    """
    server = size.server
    before = server.stored()
    command = [
        *("taskset", "-c", cores, "wrk", "-t1", f"-c{size.connections}", "-d120s"),
        *("--timeout", "10s", "-s", str(server.script), f"http://127.0.0.1:{server.port}"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        try:
            _wait_until(server, size.connections)
            time.sleep(WARM_S)
            began_s, stored, cpu_s = time.monotonic(), server.stored(), server.cpu_s()
            time.sleep(seconds)
            took_s, events = time.monotonic() - began_s, server.stored() - stored
            cpu_s = server.cpu_s() - cpu_s
        finally:
            wrk.send_signal(signal.SIGINT)  # it ends its round and prints the figures
            output, _ = wrk.communicate(timeout=30)
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT "))
    responses, _, failed, not_2xx = map(int, line.split()[1:5])
    if failed or not_2xx:
        raise RuntimeError(f"{failed} connections failed, {not_2xx} responses were not 200")
    _wait_until(server, 0)  # so that the next load has the server alone
    if server.stored() - before < responses:
        raise RuntimeError(
            f"{responses:,} events received a 200, {server.stored() - before:,} are stored"
        )
    return Round(events / took_s, cpu_s * 1e6 / events)


def _wait_until(server: Server, connections: int) -> None:
    deadline = time.monotonic() + OPEN_S
    while (found := server.connections()) != connections:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{found:,} connections are open, not {connections:,}")
        time.sleep(0.05)


@contextmanager
def one_collector(folder: Path, *settings: str, keys: Sequence[str] = ()) -> Iterator[Server]:
    """Run a collector on the server's core; without `keys` it has the demo source."""
    data, script = folder / "data", folder / "pixels.lua"
    with collector(data, *settings) as found:
        write_wrk_script(script, *(keys or [found.write_key]))
        ends = [LogEnd(DataDir.find(data), 0)]
        yield Server([found.pid], found.port, script, ends)


@contextmanager
def serve(folder: Path, workers: int) -> Iterator[Server]:
    """Run the whole server on all cores; its cost is that of its collectors."""
    data, script, settings = folder / "data", folder / "pixels.lua", folder / "pixelfast.toml"
    port = free_port()
    folder.mkdir()
    settings.write_text(_SERVE.format(data=data, port=port, workers=workers))
    write_wrk_script(script, "wk-demo")
    command = ["taskset", "-c", ALL_CORES, sys.executable, "-m", "pixelfast", "serve"]
    with running([*command, "-c", str(settings)]) as process:
        wait_for(port, process)
        ends = [LogEnd(DataDir.find(data), slot) for slot in range(workers)]
        pids = _collectors(process.pid, workers)
        yield Server(pids, port, script, ends)


def _collectors(supervisor: int, count: int) -> list[int]:
    """Return the process ids of a supervisor's collectors as soon as each has its slot."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    deadline = time.monotonic() + OPEN_S
    while time.monotonic() < deadline:
        pids = [int(each) for each in children.read_text().split()]
        names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in pids}
        found = [pid for pid, name in names.items() if name.startswith("pf-collector")]
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise RuntimeError(f"{count} collectors did not start")


@contextmanager
def by_workers(folder: Path) -> Iterator[list[Size]]:
    with ExitStack() as stack:
        yield [
            Size(count, stack.enter_context(serve(folder / str(count), count)), CONNECTIONS * count)
            for count in WORKERS
        ]


@contextmanager
def by_connections(folder: Path) -> Iterator[list[Size]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        fitting = [count for count in MANY_CONNECTIONS if count + OTHER_FILES <= hard]
        if left := MANY_CONNECTIONS[len(fitting) :]:
            print(f"  left out: {left} connections; the limit of open files is {hard:,}")
        with one_collector(folder) as server:
            yield [Size(count, server, count) for count in fitting]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def by_sources(folder: Path) -> Iterator[list[Size]]:
    with ExitStack() as stack:
        sizes = []
        for count in SOURCES:
            place = folder / str(count)
            place.mkdir()
            keys = [f"wk-{n}" for n in range(count)]
            settings = place / "pixelfast.toml"
            settings.write_text(
                "".join(_SOURCE.format(number=n, key=k) for n, k in enumerate(keys))
            )
            shared = [keys[n % count] for n in range(PIXELS)]
            server = one_collector(place, "-c", str(settings), keys=shared)
            sizes.append(Size(count, stack.enter_context(server), CONNECTIONS))
        yield sizes


@contextmanager
def by_backlog(folder: Path) -> Iterator[list[Size]]:
    with ExitStack() as stack:
        sizes = []
        for count in BACKLOG:
            if count:
                fill(folder / str(count) / "data", count, EVENTS_A_FRAME)
            else:
                (folder / str(count)).mkdir()
            server = stack.enter_context(one_collector(folder / str(count)))
            if server.stored() != count:
                raise RuntimeError(f"{server.stored():,} of {count:,} events are in the spool")
            sizes.append(Size(count, server, CONNECTIONS))
        yield sizes


PARTS = {
    "workers": by_workers,
    "connections": by_connections,
    "sources": by_sources,
    "backlog": by_backlog,
}


def run(rounds: int = 3, seconds: float = 2.0, parts: Sequence[str] = tuple(PARTS)) -> Section:
    """Measure, and print each result at once; the figures are rounds by part and size."""
    print_head(__doc__ or "", METHOD)
    rows: list[tuple[object, ...]] = []
    figures: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        with (
            tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place,
            PARTS[part](Path(place)) as sizes,
        ):
            found = _rounds(part, sizes, rounds, seconds)
        unit = "events" if part == "backlog" else "count"
        for count, own in found.items():
            rates, costs = zip(*own, strict=True)
            first = found[next(iter(found))]
            ratios = [cost / one.cpu_us for cost, one in zip(costs, first, strict=True)]
            rows.append((part, f"{count:,}", spread(rates, 0), spread(costs), spread(ratios)))
            each = {unit: count, "requests_per_s": rates, "cpu_us": costs}
            figures.setdefault(part, []).append(each)
    head = "what grows, to, requests/s, CPU µs/request, : the first of its kind"
    text = table(head.split(", "), rows)
    print("\n" + text)
    return Section(text, figures)


def _rounds(part: str, sizes: list[Size], rounds: int, seconds: float) -> dict[int, list[Round]]:
    found: dict[int, list[Round]] = {size.count: [] for size in sizes}
    for number in range(rounds):
        for size in sizes:
            one = load(size, seconds, ALL_CORES if part == "workers" else str(LOAD_CORE))
            found[size.count].append(one)
            print(
                f"  round {number + 1} {part:11} {size.count:10,} "
                f"{one.requests_per_s:9,.0f}/s {one.cpu_us:6.2f} µs",
                flush=True,
            )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; all without")
    options = parser.parse_args()
    run(options.rounds, options.seconds, options.part or tuple(PARTS))
