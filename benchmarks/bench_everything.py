"""Cost of a pixel from the request to its destination, of all processes together."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.bench_delivery import delivered
from benchmarks.corpus import write_wrk_script
from benchmarks.goals import goals_of
from benchmarks.machine import print_head
from benchmarks.openloop import Offered, offer
from benchmarks.receiver import receiver
from benchmarks.report import Section, spread, table
from benchmarks.servers import collector, nginx, serving, stored_events, wait_until
from benchmarks.wrk import cpu_seconds, load

__all__ = ["run"]

METHOD = """\
`pixelfast serve` runs with one collector, delivery and the supervisor, all on one core. It stores
and delivers every event, to a file or to one HTTP server (`json_array`, all other settings at
their defaults). wrk runs on the other core, and so does the HTTP server, whose CPU time is not
counted; it takes time from wrk. nginx (one worker, `empty_gif`, a buffered access log) and
`pixelfast collect`, which does not deliver, take turns with it in each round. CPU is the user and
system time of all processes of a server per request, until the last event was delivered. A server
is warmed up until its collector writes over segments that were delivered, as it does in service;
`pixelfast collect` delivers nothing and therefore always writes into new segments. A response
other than 200 is an error, and so is an event that had a 200 and that the destination has not
accepted at the end.

Under a constant load (benchmarks/openloop.py), the rate is 75 % of what wrk achieved immediately
before, and each round lasts for several segments. nginx gets the rate of `pixelfast collect`: its
latencies show what the machine and the load generator add. The latency counts from the time at
which a request was due. The figures are medians, with the minimum and the maximum in
parentheses."""

CONNECTIONS = (64, 256)
NGINX, COLLECT, FILE, HTTP = "nginx", "collect", "file", "http"
DOES = {
    NGINX: "`empty_gif` and a buffered access log: stores and delivers no event",
    COLLECT: "`pixelfast collect`: each event is synced before its response; none is delivered",
    FILE: "`pixelfast serve`, each event also written and synced to a file",
    HTTP: "`pixelfast serve`, each event also sent to an HTTP server",
}
SUPERVISOR, COLLECTOR, DELIVERY = "supervisor", "pf-collector-0", "pf-delivery"
EVENT_BYTES = 600  # at least
RECYCLED_AFTER_BYTES = 4 * 64 * 2**20  # the spool then consists of segments that were recycled
WARM_UP_S = 2
PATIENCE_S = 60.0
STEADY_SHARE = 0.75
STEADY_CONNECTIONS = 256

_FILE = 'type = "file"\npath = "{folder}"\n'
_HTTP = 'type = "http"\nurl = "http://127.0.0.1:{port}/"\n'


class Everything(NamedTuple):
    """The result of one load of one server."""

    requests_per_s: float
    cpu_us: float  # of all processes per request
    cpu_us_by_process: dict[str, float]
    p50_ms: float
    p99_ms: float


class Server:
    """A running server, and what it was sent.

    Attributes:
        data: its data directory, or None for nginx.
        destination: the database of its destination, or None if it delivers nothing.
    """

    def __init__(
        self,
        port: int,
        pids: dict[str, int],
        script: Path,
        write_key: str,
        data: Path | None = None,
        destination: Path | None = None,
    ) -> None:
        self.data = data
        self.destination = destination
        self._port = port
        self._pids = pids
        self._script = script
        self._write_key = write_key
        self._responses = 0
        write_wrk_script(script, write_key)

    def load(self, connections: int, seconds: float) -> Everything:
        """Load the server with wrk, and wait until every event is delivered."""
        before = self._cpu_seconds()
        found = load(self._port, self._script, connections, seconds)
        self._responses += found.requests
        self._wait_for_delivery()
        after = self._cpu_seconds()
        costs = {name: (after[name] - before[name]) * 1e6 / found.requests for name in after}
        return Everything(
            found.requests_per_s, sum(costs.values()), costs, found.p50_ms, found.p99_ms
        )

    def offer(self, rate: float, seconds: float) -> Offered:
        """Load the server at a constant rate, and wait until every event is delivered."""
        found = offer(self._port, self._write_key, rate, seconds, STEADY_CONNECTIONS)
        self._responses += found.responses
        self._wait_for_delivery()
        return found

    def warm_up(self) -> None:
        """Load the server until its collector writes over segments that were delivered."""
        self.load(CONNECTIONS[-1], WARM_UP_S)
        while self.destination and self._responses * EVENT_BYTES < RECYCLED_AFTER_BYTES:
            self.load(CONNECTIONS[-1], WARM_UP_S)

    def check(self) -> None:
        """Check, after the server has ended, that no event is missing in its spool.

        Events that were delivered have been checked before, and their segments are gone.

        Raises:
            RuntimeError: an event is missing.
        """
        if self.data is None or self.destination is not None:
            return
        if (stored := stored_events(self.data)) < self._responses:
            raise RuntimeError(f"{stored:,} of {self._responses:,} events are stored")

    def _wait_for_delivery(self) -> None:
        if path := self.destination:
            wait_until(
                lambda: delivered(path) >= self._responses,
                f"{self._responses:,} events delivered",
                PATIENCE_S,
            )

    def _cpu_seconds(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}


@contextmanager
def started(name: str, folder: Path) -> Iterator[Server]:
    """Start one of the servers; all of them run on the same core."""
    folder.mkdir()
    script = folder / "pixels.lua"
    if name == NGINX:
        with nginx(folder / "nginx") as running:
            yield Server(running.port, {name: running.pid}, script, running.write_key)
    elif name == COLLECT:
        data = folder / "data"
        with collector(data) as running:
            yield Server(running.port, {COLLECTOR: running.pid}, script, running.write_key, data)
    else:
        with receiver() as hook:
            destination = _FILE.format(folder=folder / "archive")
            if name == HTTP:
                destination = _HTTP.format(port=hook.port)
            with serving(folder, destination) as served:
                data = folder / "data"
                state = data / "dest" / "live" / "state.db"
                yield Server(served.port, served.pids, script, "wk-demo", data, state)


def run(rounds: int = 5, seconds: float = 3, steady_s: float = 8) -> Section:
    """Measure, and print each result at once; the figures are rounds by server and connections."""
    print_head(__doc__ or "", METHOD)
    results: dict[str, dict[int, list[Everything]]] = {
        name: {count: [] for count in CONNECTIONS} for name in DOES
    }
    steady: dict[str, list[Offered]] = {NGINX: [], COLLECT: [], FILE: []}
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place, ExitStack() as stack:
        servers = {name: stack.enter_context(started(name, Path(place) / name)) for name in DOES}
        for server in servers.values():
            server.warm_up()
        for number in range(rounds):
            for count in CONNECTIONS:
                for name, server in servers.items():
                    results[name][count].append(one := server.load(count, seconds))
                    parts = ", ".join(
                        f"{process} {cost:.2f}" for process, cost in one.cpu_us_by_process.items()
                    )
                    print(
                        f"  round {number + 1} c{count:<4} {name:8} {one.requests_per_s:9,.0f}/s "
                        f"{one.cpu_us:6.2f} µs ({parts}) p99 {one.p99_ms:.2f} ms",
                        flush=True,
                    )
            for name, own in steady.items():
                rated = COLLECT if name == NGINX else name
                rate = STEADY_SHARE * results[rated][STEADY_CONNECTIONS][-1].requests_per_s
                own.append(offered := servers[name].offer(rate, steady_s))
                print(
                    f"  round {number + 1} {name:8} {rate:,.0f}/s p50 {offered.p50_ms:.2f} p99 "
                    f"{offered.p99_ms:.2f} p99.9 {offered.p999_ms:.2f} ms, load idle "
                    f"{offered.idle_share:.0%}",
                    flush=True,
                )
        stack.close()
        for server in servers.values():
            server.check()
    figures: dict[str, Any] = {
        "servers": {
            name: {str(count): [each._asdict() for each in own] for count, own in counts.items()}
            for name, counts in results.items()
        },
        "steady": {name: [each._asdict() for each in own] for name, own in steady.items()},
    }
    text = f"{_table(results)}\n\n{_steady_table(steady)}"
    section = Section(text, figures)
    print(f"\n{text}\n\n{goals_of('everything', figures)}")
    return section


def _table(results: dict[str, dict[int, list[Everything]]]) -> str:
    head = "server, connections, requests/s, CPU µs/request, of the collector, of delivery"
    rows = []
    for count in CONNECTIONS:
        base = results[NGINX][count]
        for name, counts in results.items():
            own = counts[count]
            pairs = list(zip(own, base, strict=True))
            rows.append(
                (
                    name,
                    count,
                    spread([each.requests_per_s for each in own], 0),
                    spread([each.cpu_us for each in own]),
                    *(_part(own, process) for process in (COLLECTOR, DELIVERY, SUPERVISOR)),
                    spread([each.p99_ms for each in own]),
                    spread([each.cpu_us / other.cpu_us for each, other in pairs]),
                    spread([each.requests_per_s / other.requests_per_s for each, other in pairs]),
                )
            )
    more = ["of the supervisor", "p99 ms", "CPU : nginx", "requests/s : nginx"]
    does = "\n".join(f"- **{name}**: {text}" for name, text in DOES.items())
    return f"{table([*head.split(', '), *more], rows)}\n\n{does}"


def _part(own: Sequence[Everything], process: str) -> str:
    costs = [each.cpu_us_by_process[process] for each in own if process in each.cpu_us_by_process]
    return spread(costs) if costs else ""


def _steady_table(steady: dict[str, list[Offered]]) -> str:
    head = "server, requests/s, p50 ms, p99 ms, p99.9 ms, maximum ms, load idle"
    rows = [
        (
            name,
            spread([each.offered_per_s for each in own], 0),
            *(
                spread([getattr(each, figure) for each in own])
                for figure in ("p50_ms", "p99_ms", "p999_ms", "most_ms")
            ),
            f"{median(each.idle_share for each in own):.0%}",
        )
        for name, own in steady.items()
    ]
    return table(head.split(", "), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--steady", type=float, default=8, help="seconds at a constant rate")
    options = parser.parse_args()
    run(options.rounds, options.seconds, options.steady)
