"""Lag and cost of delivery while pixels arrive."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import NamedTuple

from benchmarks import wrk
from benchmarks.corpus import write_wrk_script
from benchmarks.goals import goals_of
from benchmarks.machine import print_head
from benchmarks.openloop import offer
from benchmarks.receiver import receiver, sampled_lags_ms
from benchmarks.report import Section, spread, table
from benchmarks.servers import serving
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, cpu_seconds

__all__ = ["run"]

METHOD = """\
`pixelfast serve` runs with one or two collectors and one destination. All processes may use both
cores, which they share with the load. The load is 1,500 pixels/s from one keep-alive connection
(benchmarks/openloop.py), then wrk at full speed from 1 to 256 connections. The destination is a
file, or an HTTP server that responds with 200 (`json_array`, all other settings at their
defaults). The lag of an event is the time from its `receivedAt` until the destination has it. One
event in 16 is sampled, and at least one of each batch. CPU is the user and system time of the
delivery process per event that it delivered in that time. A response other than 200 is an error,
and so is an event that had a 200 and that the destination does not have 10 s after the end of the
load. All cases take turns in each round. The figures are medians, with the minimum and the
maximum in parentheses."""

CASES = tuple(
    (kind, workers, connections)
    for kind in ("file", "http")
    for workers in (1, 2)
    for connections in (0, 1, 4, 64, 256)
)
STEADY_PER_S = 1500  # from one connection: the case of 0 connections
MAX_AGE_S = {"file": 0.2, "http": 1.0}  # how long a batch waits for more events
BOTH_CORES = f"{SERVER_CORE},{LOAD_CORE}"
FILE_LOOK_S = 0.005

_FILE = 'type = "file"\npath = "{folder}"\n'
_HTTP = 'type = "http"\nurl = "http://127.0.0.1:{port}/"\n'


class Live(NamedTuple):
    """The result of one case in one round."""

    events_per_s: float
    cpu_us: float  # of delivery per delivered event
    lag_p50_ms: float
    lag_p99_ms: float


class Archive:
    """Follow the files of a file destination as they grow."""

    def __init__(self, folder: Path) -> None:
        self.lags_ms: list[float] = []
        self.events = 0
        self._folder = folder
        self._stopping = Event()
        self._thread = Thread(target=self._follow)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        offsets: dict[str, int] = {}
        while not self._stopping.wait(FILE_LOOK_S):
            for path in sorted(self._folder.glob("*.ndjson")):
                with path.open("rb") as file:
                    file.seek(offsets.get(path.name, 0))
                    lines = file.read()
                lines = lines[: lines.rfind(b"\n") + 1]
                if lines:
                    offsets[path.name] = offsets.get(path.name, 0) + len(lines)
                    self.events += lines.count(b"\n")
                    self.lags_ms += sampled_lags_ms(lines)


def load(folder: Path, port: int, connections: int, seconds: float) -> int:
    """Send pixels; return how many got a 200.

    Raises:
        RuntimeError: another response was given, or a connection failed.
    """
    if not connections:
        return offer(port, "wk-demo", STEADY_PER_S, seconds, 1).responses
    script = folder / "pixels.lua"
    write_wrk_script(script, "wk-demo")
    return wrk.load(port, script, connections, seconds, BOTH_CORES).requests


def measure(kind: str, workers: int, connections: int, seconds: float) -> Live:
    """Measure one case.

    Raises:
        RuntimeError: an event with a 200 response did not arrive.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place,
        receiver("--lags") as hook,
    ):
        folder = Path(place)
        archive = Archive(folder / "archive")
        destination = _HTTP.format(port=hook.port)
        if kind == "file":
            destination = _FILE.format(folder=folder / "archive")
        try:
            with serving(folder, destination, workers, cores=BOTH_CORES) as server:
                before_s, began_s = cpu_seconds(server.delivery), time.monotonic()
                responses = load(folder, server.port, connections, seconds)
                took_s = time.monotonic() - began_s
                time.sleep(2 * MAX_AGE_S[kind])  # the last batch
                cpu_s = cpu_seconds(server.delivery) - before_s
                # A stop delivers the remaining events, which are late but not missing.
        finally:
            archive.stop()
        received = hook.stop().get("/")
        lags_ms = sorted(
            archive.lags_ms if kind == "file" else received.lags_ms if received else []
        )
        if kind == "file" and archive.events < responses:
            raise RuntimeError(f"{archive.events:,} of {responses:,} events arrived")
    return Live(
        responses / took_s,
        cpu_s * 1e6 / responses,
        median(lags_ms),
        lags_ms[int(len(lags_ms) * 0.99)],
    )


def run(rounds: int = 3, seconds: float = 4.0, only: Sequence[str] = ()) -> Section:
    """Measure, and print each result at once; the figures are rates, costs and lags by round."""
    print_head(__doc__ or "", METHOD)
    cases = [case for case in CASES if not only or "-".join(map(str, case)) in only]
    found: dict[tuple[str, int, int], list[Live]] = {case: [] for case in cases}
    for number in range(rounds):
        for case, own in found.items():
            own.append(measure(*case, seconds))
            print(f"  round {number + 1} {case}: {own[-1]}", flush=True)
    rows, figures = [], []
    for (kind, workers, connections), own in found.items():
        rates, costs, p50s, p99s = zip(*own, strict=True)
        name = f"{connections}" if connections else f"1, {STEADY_PER_S:,}/s"
        texts = (spread(rates, 0), spread(costs), spread(p50s, 0), spread(p99s, 0))
        rows.append((kind, workers, name, *texts))
        figures.append(
            {
                "kind": kind,
                "workers": workers,
                "connections": connections,
                "events_per_s": rates,
                "cpu_us": costs,
                "lag_p50_ms": p50s,
                "lag_p99_ms": p99s,
                "bound_ms": (MAX_AGE_S[kind] + 0.5) * 1e3,
            }
        )
    head = "destination, collectors, connections, events/s, CPU µs/event, lag p50 ms, lag p99 ms"
    section = Section(table(head.split(", "), rows), {"cases": figures})
    print(f"\n{section.text}\n\n{goals_of('live', section.figures)}")
    return section


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="cases such as file-1-64; else all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    run(options.rounds, options.seconds, options.only)
