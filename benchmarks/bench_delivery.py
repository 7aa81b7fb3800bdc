"""Speed and cost of delivering a backlog to HTTP destinations."""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.backlog import SOURCE, fill
from benchmarks.machine import print_head
from benchmarks.receiver import Received, receiver
from benchmarks.report import Section, spread, table
from benchmarks.wrk import SERVER_CORE, cpu_seconds

__all__ = ["Backlog", "Drained", "deliver_on_one_core", "delivered", "drain", "run"]

METHOD = """\
A spool is filled with the events of the 1,000 pixels of the load. Then delivery (`pixelfast
deliver`, one process on one core) sends all of them to HTTP destinations on the other core: one
server that reads each request to its end and responds with 200. The first runs have one
destination in three formats, the others 1, 2, 4 and 8 destinations at the same time, each with
its own cursor over the same backlog. Time is measured from the first plan to the record of the
last event of the last destination. CPU is the user and system time of the delivery process in
that time; a delivered event is one event at one destination. An event that is not recorded as
delivered is an error, and so is a destination that did not receive every byte of the backlog
exactly once. The last batch waits 0.05 s for more events, not the default second. For the runs
with 1 and 2 delivery processes, `pixelfast serve` delivers the backlog with
`deliver.processes`, on all cores that the machine has. Their time begins when every destination
has accepted events, and the CPU time is that of all delivery processes. The runs take turns in
each round. The figures are medians, with the minimum and the maximum in parentheses."""

FORMATS = (("json_array", 500), ("json_array", 2000), ("ndjson", 500))
DESTINATIONS = (1, 2, 4, 8)
SPREAD = ((2, 1), (2, 2), (3, 1), (3, 2))  # destinations, and their delivery processes
PATIENCE_S = 120.0

_SETTINGS = """
data_dir = "{data}"
[deliver]
processes = {processes}
[log]
level = "warning"
[[sources]]
name = "{source}"
write_keys = ["k"]
"""
_DESTINATION = """
[[destinations]]
name = "hook{number}"
type = "http"
url = "http://127.0.0.1:{port}/{number}"
start = "earliest"
format = "{form}"
max_events = {events}
max_bytes = "4MiB"
max_age_s = 0.05
"""


class Drained(NamedTuple):
    """The result of delivering one backlog to all destinations."""

    events_per_s: float  # of all destinations together
    cpu_us: float  # a delivered event


class Case(NamedTuple):
    """The destinations that receive a backlog."""

    destinations: int
    form: str
    events: int  # a batch
    processes: int = 0  # delivery processes of a server; 0: `pixelfast deliver` on one core


class Backlog(NamedTuple):
    """A filled spool; each round drains a copy of it, whose segments are links."""

    folder: Path
    events: int
    size_bytes: int

    @contextmanager
    def copied(self) -> Iterator[tuple[Path, Path]]:
        """Yield a copy of the data directory, and where to write the settings for it."""
        with tempfile.TemporaryDirectory(prefix="drain-", dir=self.folder.parent) as place:
            data = Path(place) / "data"
            # Delivery removes segments that it has read, which removes only these links.
            shutil.copytree(self.folder, data, copy_function=_link_segment)
            yield data, Path(place) / "pixelfast.toml"


def _link_segment(source: str, target: str) -> None:
    """Link a segment, and copy any other file: delivery may have to correct its mode."""
    (os.link if source.endswith(".seg") else shutil.copy2)(source, target)


def drain(
    backlog: Backlog, destinations: int, form: str, events: int, processes: int = 0
) -> Drained:
    """Deliver the backlog to all destinations.

    Raises:
        RuntimeError: an event has not arrived, or arrived twice.
    """
    with backlog.copied() as (data, settings), receiver() as received:
        parts = [_SETTINGS.format(data=data, source=SOURCE, processes=processes)]
        parts += [
            _DESTINATION.format(number=number, port=received.port, form=form, events=events)
            for number in range(destinations)
        ]
        settings.write_text("".join(parts))
        run_all = _serve if processes else _deliver
        drained = run_all(settings, data, backlog.events, destinations)
        _check(received.stop(), backlog, destinations, form)
        return drained


def _deliver(settings: Path, data: Path, count: int, destinations: int) -> Drained:
    names = [f"hook{number}" for number in range(destinations)]
    return deliver_on_one_core(settings, data, count, names)


def deliver_on_one_core(settings: Path, data: Path, count: int, names: Sequence[str]) -> Drained:
    """Run `pixelfast deliver` until each destination has recorded `count` events as delivered.

    Raises:
        RuntimeError: the process has ended, or has not delivered all events in time.
    """
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "pixelfast", "deliver"]
    process = subprocess.Popen([*command, "-c", str(settings)], stdout=subprocess.DEVNULL)
    books = [data / "dest" / name / "state.db" for name in names]
    began_s = began_cpu_s = 0.0
    deadline = time.monotonic() + PATIENCE_S
    try:
        while books:
            now_s = time.monotonic()
            if not began_s and books[0].exists():
                began_s, began_cpu_s = now_s, cpu_seconds(process.pid)
            if delivered(books[-1]) >= count:
                books.pop()
                continue
            if now_s > deadline or process.poll() is not None:
                raise RuntimeError(f"{delivered(books[-1]):,} of {count:,} events were delivered")
            time.sleep(0.01)  # delivery does not notify: poll its state
        total = count * len(names)
        cpu_us = (cpu_seconds(process.pid) - began_cpu_s) * 1e6 / total
        return Drained(total / (time.monotonic() - began_s), cpu_us)
    finally:
        process.terminate()
        process.wait(30)


def _serve(settings: Path, data: Path, count: int, destinations: int) -> Drained:
    command = [sys.executable, "-m", "pixelfast", "serve", "-c", str(settings), "--admin", ""]
    server = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--workers", "1"], stdout=subprocess.DEVNULL
    )
    books = [data / "dest" / f"hook{number}" / "state.db" for number in range(destinations)]
    deadline = time.monotonic() + PATIENCE_S
    try:
        began = done = [0]
        began_s = began_cpu_s = 0.0
        while sum(done) < count * destinations:
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"{done} of {count:,} events were delivered")
            time.sleep(0.01)  # delivery does not notify: poll its state
            done = [delivered(book) for book in books]
            if not all(began) and all(done):
                began, began_s, began_cpu_s = done, time.monotonic(), _delivery_cpu_s(server.pid)
        total = count * destinations - sum(began)
        cpu_us = (_delivery_cpu_s(server.pid) - began_cpu_s) * 1e6 / total
        return Drained(total / (time.monotonic() - began_s), cpu_us)
    finally:
        server.terminate()
        server.wait(30)


def _delivery_cpu_s(server: int) -> float:
    """Return the CPU time of all delivery processes of a server."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    named = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in map(int, children)}
    return sum(cpu_seconds(pid) for pid, name in named.items() if name.startswith("pf-delivery"))


def delivered(path: Path) -> int:
    """Return how many events a destination's `state.db` records as delivered."""
    if not path.exists():
        return 0
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            row = db.execute("SELECT value FROM counter WHERE name = 'delivered'").fetchone()
        finally:
            db.close()
    except sqlite3.Error:  # being created, or locked
        return 0
    return int(row[0]) if row else 0


def _check(received: dict[str, Received], backlog: Backlog, destinations: int, form: str) -> None:
    """Check by the sizes of the bodies that each destination received every event once."""
    if len(received) != destinations:
        raise RuntimeError(f"{len(received)} of {destinations} destinations were sent anything")
    for path, each in received.items():
        # An array has commas instead of line feeds, none at its end, and two brackets.
        size_bytes = each.size_bytes - (each.requests if form == "json_array" else 0)
        if size_bytes != backlog.size_bytes:
            raise RuntimeError(f"{path} was sent {size_bytes:,} bytes of {backlog.size_bytes:,}")


def run(rounds: int = 3, count: int = 500_000) -> Section:
    """Measure, and print each result at once; the figures are rates and costs, round by round."""
    print_head(__doc__ or "", METHOD)
    cases = [Case(1, form, events) for form, events in FORMATS]
    cases += [Case(number, *FORMATS[0]) for number in DESTINATIONS[1:]]
    cases += [Case(number, *FORMATS[0], processes) for number, processes in SPREAD]
    found: dict[Case, list[Drained]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        backlog = Backlog(Path(place) / "data", count, fill(Path(place) / "data", count))
        for number in range(rounds):
            for case, own in found.items():
                own.append(drain(backlog, *case))
                print(
                    f"  round {number + 1} to {case.destinations}: {case.form:10} {case.events:5} "
                    f"{case.processes or '-'} "
                    f"{own[-1].events_per_s:10,.0f}/s {own[-1].cpu_us:5.2f} µs",
                    flush=True,
                )
    rows = []
    figures: dict[str, Any] = {}
    for form, events in FORMATS:
        rates, costs = zip(*found[Case(1, form, events)], strict=True)
        rows.append((form, f"{events:,}", spread(rates, 0), spread(costs)))
        figures[f"{form} {events}"] = {"events_per_s": rates, "cpu_us": costs}
    text = table(("format", "events a batch", "events/s", "CPU µs/event"), rows)
    more, figures["destinations"] = _by_destinations(found)
    text += f"\n\nSeveral destinations, {FORMATS[0][0]} {FORMATS[0][1]}:\n\n" + more
    more, figures["processes"] = _by_processes(found)
    text += "\n\nThe same with several delivery processes:\n\n" + more
    print("\n" + text)
    return Section(text, figures)


def _by_destinations(found: dict[Case, list[Drained]]) -> tuple[str, list[dict[str, object]]]:
    rows, figures = [], []
    alone = found[Case(1, *FORMATS[0])]
    for count in DESTINATIONS:
        own = found[Case(count, *FORMATS[0])]
        rates, costs = zip(*own, strict=True)
        ratios = [cost / one.cpu_us for cost, one in zip(costs, alone, strict=True)]
        each = spread([rate / count for rate in rates], 0)
        rows.append((count, spread(rates, 0), each, spread(costs), spread(ratios)))
        figures.append({"count": count, "events_per_s": rates, "cpu_us": costs})
    head = "destinations, delivered/s, of these to each, CPU µs/delivered event, : one destination"
    return table(head.split(", "), rows), figures


def _by_processes(found: dict[Case, list[Drained]]) -> tuple[str, list[dict[str, object]]]:
    rows, figures = [], []
    for count, processes in SPREAD:
        rates, costs = zip(*found[Case(count, *FORMATS[0], processes)], strict=True)
        rows.append((count, processes, spread(rates, 0), spread(costs)))
        own = {"destinations": count, "processes": processes}
        figures.append({**own, "events_per_s": rates, "cpu_us": costs})
    head = ("destinations", "delivery processes", "delivered/s", "CPU µs/delivered event")
    return table(head, rows), figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=500_000)
    options = parser.parse_args()
    run(options.rounds, options.count)
