"""Memory, and time to the first response."""

from __future__ import annotations

import argparse
import math
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.backlog import events as pixels
from benchmarks.backlog import fill
from benchmarks.corpus import PIXELS, write_wrk_script
from benchmarks.machine import print_head
from benchmarks.openloop import connect, requests
from benchmarks.report import Section, spread, table
from benchmarks.servers import collector, free_port, running
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, measure
from pixelfast.spool import DataDir, LogEnd

__all__ = ["run"]

METHOD = """\
Memory is Rss of /proc/PID/smaps_rollup: all pages of a process, including those that it shares
with others. After a start: 1.5 seconds after the first response. Maximum: VmHWM, including the
start, after four seconds of wrk with 64 connections, in which the collector switches segments.
The kernel's memory for sockets is not included.

Connections: one collector, warmed up by wrk, and keep-alive connections that have each sent a
pixel, received the GIF, and are idle. Bytes per connection are the growth from no connection to
the maximum, divided by their number.

Backlog: `pixelfast serve` with one collector and one HTTP destination on whose port no process
listens. The event log is filled with the events of the 1,000 pixels of the load, and is in the
page cache as far as it fits. First response: from the start of the process, including Python, to
the 200 of a pixel whose event is on disk; requests are repeated every millisecond until the port
is open. `collect` runs on one core, and the three processes of `serve` on two, one of which the
load uses. The figures are medians, with the minimum and the maximum in parentheses."""

OPEN = (0, 1_000, 5_000, 10_000)
EVENTS = (0, 1_000_000, 10_000_000)
PENDING_BYTES = 10 * 2**30  # also the minimum of the largest backlog
SPARE_BYTES = 2 * 2**30
SPARE_FILES = 100
SETTLE_S = 1.5  # the collector checks its connections once per second
LOAD_S = 4
PATIENCE_S = 30.0
KEY = "wk-demo"
_SETTINGS = """
data_dir = "{data}"
[server]
listen = ["127.0.0.1:{port}"]
admin = ""
workers = 1
[log]
level = "error"
[[sources]]
name = "demo"
write_keys = ["{key}"]
[[destinations]]
name = "hook"
type = "http"
url = "http://127.0.0.1:{closed}/"
start = "earliest"
"""


def resident_bytes(pid: int, name: str = "Rss", place: str = "smaps_rollup") -> int:
    """Return one figure of the memory of a process."""
    for line in Path(f"/proc/{pid}/{place}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/{pid}/{place}")


# --- connections -----------------------------------------------------------------------------


def connections_round() -> list[int]:
    """Return the memory of a new collector with each number of idle connections."""
    found = []
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        server = stack.enter_context(collector(folder / "data"))
        script = folder / "pixels.lua"
        write_wrk_script(script, server.write_key)
        measure(server.pid, server.port, script, 64, 1)
        texts = requests(server.write_key)
        sockets: list[socket.socket] = []
        for count in OPEN:
            while len(sockets) < count:
                sock, _ = connect(server.port, texts[len(sockets) % len(texts)])
                sockets.append(stack.enter_context(sock))
            time.sleep(SETTLE_S)
            found.append(resident_bytes(server.pid))
        for sock in sockets:  # check that all are still open
            sock.sendall(texts[0])
        for sock in sockets:
            if not sock.recv(4096).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("a connection received no 200 any more")
    return found


def allow_files(count: int) -> None:
    """Raise the limit of open files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise RuntimeError(f"{count:,} open files are needed, the limit is {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


# --- backlog and start -----------------------------------------------------------------------


class Site:
    """A data directory with settings, and its backlog."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = DataDir.open(folder / "data")
        self.settings = folder / "pixelfast.toml"
        self.settings.write_text(
            _SETTINGS.format(data=self.data.path, port=self.port, key=KEY, closed=free_port())
        )
        self.script = folder / "pixels.lua"
        write_wrk_script(self.script, KEY)

    def pending(self) -> tuple[int, int]:
        """Return the number of events and the size of their segments in bytes."""
        folder = self.data.slot_dir(0)
        segments = folder.glob("*.seg") if folder.exists() else ()
        return LogEnd(self.data, 0).refresh()[1], sum(each.stat().st_size for each in segments)

    def fill(self, least_events: int, least_bytes: int) -> None:
        """Store and sync events as a collector does until there are this many, of this size."""
        events, size = self.pending()
        if events >= least_events and size >= least_bytes:
            return
        mean_bytes = sum(len(each) + 1 for each in pixels()) / PIXELS
        missing = max(least_events - events, (least_bytes - size) / mean_bytes)
        count = math.ceil(missing / PIXELS) * PIXELS
        fill(self.data.path, count, PIXELS)
        number = events + count
        if (found := self.pending()[0]) != number:
            raise RuntimeError(f"{number:,} events were written, {found:,} are found")

    @contextmanager
    def started(self, command: str) -> Iterator[tuple[int, float]]:
        """Start pixelfast; yield its process id and the time until its first response."""
        request = requests(KEY)[0]
        began_s = time.perf_counter()
        words = [sys.executable, "-m", "pixelfast", command, "-c", str(self.settings)]
        if command == "serve":  # three processes: on one core they would wait for each other
            words = ["taskset", "-c", f"{SERVER_CORE},{LOAD_CORE}", *words]
        with running(words) as process:
            while True:
                try:
                    connect(self.port, request)[0].close()
                    break
                except ConnectionRefusedError:
                    late = time.perf_counter() - began_s > PATIENCE_S
                    if late or process.poll() is not None:
                        raise RuntimeError(f"{words} did not respond") from None
                    time.sleep(0.001)
            yield process.pid, time.perf_counter() - began_s


class Memory(NamedTuple):
    """The memory of the processes of one `pixelfast serve`."""

    events: int
    collector_bytes: int
    collector_most_bytes: int  # since the start, including the load
    delivery_bytes: int
    delivery_most_bytes: int
    supervisor_bytes: int


def serve_memory(site: Site) -> Memory:
    """Start pixelfast, wait, send pixels, and return its memory."""
    events, _ = site.pending()
    with site.started("serve") as (pid, _):
        time.sleep(SETTLE_S)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        by_name = {Path(f"/proc/{each}/comm").read_text().strip(): int(each) for each in children}
        ours, delivery = by_name["pf-collector-0"], by_name["pf-delivery"]
        idle = [resident_bytes(each) for each in (ours, delivery, pid)]
        load = measure(ours, site.port, site.script, 64, LOAD_S)
        most = [resident_bytes(each, "VmHWM", "status") for each in (ours, delivery)]
    if (stored := site.pending()[0]) < events + load.requests:
        raise RuntimeError(f"{events + load.requests:,} events were stored, {stored:,} are there")
    return Memory(events, idle[0], most[0], idle[1], most[1], idle[2])


def starts_s(site: Site, command: str, count: int) -> list[float]:
    """Return how long each start takes until the first response."""
    found = []
    for _ in range(count):
        with site.started(command) as (_, seconds):
            found.append(seconds)
    return found


# --- everything ------------------------------------------------------------------------------


def run(rounds: int = 3, starts: int = 5, pending_bytes: int = PENDING_BYTES) -> Section:
    """Measure, and print each result at once; the figures are bytes and seconds."""
    print_head(__doc__ or "", METHOD)
    parts, figures = [], {}
    for text, found in (run_connections(rounds), run_backlog(starts, pending_bytes)):
        parts.append(text)
        figures.update(found)
        print(f"\n{text}\n", flush=True)
    return Section("\n\n".join(parts), figures)


def run_connections(rounds: int) -> Section:
    """Measure idle connections, in a new collector for each round."""
    allow_files(OPEN[-1] + SPARE_FILES)
    by_round = []
    for number in range(rounds):
        by_round.append(connections_round())
        seen = ", ".join(f"{each / 1e6:.1f}" for each in by_round[-1])
        print(f"  round {number + 1}: {seen} MB", flush=True)
    by_count = dict(zip(OPEN, zip(*by_round, strict=True), strict=True))
    a_connection = [(own[-1] - own[0]) / OPEN[-1] for own in by_round]
    rows = [(f"{count:,}", _mb(own)) for count, own in by_count.items()]
    text = table(("idle connections", "collector, MB"), rows)
    figures = {
        "connections": [
            {"open": count, "collector_bytes": median(own)} for count, own in by_count.items()
        ],
        "bytes_a_connection": a_connection,
    }
    return Section(f"{text}\n\nAn idle connection takes {spread(a_connection, 0)} bytes.", figures)


def run_backlog(starts: int, pending_bytes: int) -> Section:
    """Measure memory and starts as the backlog grows; delete its files at the end."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < pending_bytes + SPARE_BYTES:
        raise RuntimeError(f"{pending_bytes + SPARE_BYTES:,} bytes are needed, {free:,} are free")
    backlog: list[Memory] = []
    cold: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        site = Site(Path(place))
        for events in EVENTS:
            began_s = time.monotonic()
            site.fill(events, pending_bytes if events == EVENTS[-1] else 0)
            there, size = site.pending()
            took_s = time.monotonic() - began_s
            print(
                f"  {there:,} events pending, {size:,} bytes, filled in {took_s:.0f} s", flush=True
            )
            if events in (EVENTS[0], EVENTS[-1]):
                found = cold["empty" if events == EVENTS[0] else "full"] = {
                    "pending_events": there,
                    "pending_bytes": size,
                    "first_response_s": starts_s(site, "serve", starts),
                    "collect_first_response_s": starts_s(site, "collect", starts),
                }
                print(f"  first responses: {found}", flush=True)
            backlog.append(serve_memory(site))
            print(f"  {backlog[-1]}", flush=True)
    text = f"{_backlog_table(backlog)}\n\n{_cold_table(cold.values())}"
    figures = {
        "backlog": [each._asdict() for each in backlog],
        "cold_start": cold["full"],
        "cold_start_empty": cold["empty"],
    }
    return Section(text, figures)


def _mb(values: Sequence[float]) -> str:
    return spread([each / 1e6 for each in values], 1)


def _backlog_table(backlog: list[Memory]) -> str:
    head = "events pending, collector, at most, delivery, at most, supervisor"
    rows = [
        (f"{each.events:,}", *(f"{part / 1e6:.1f} MB" for part in each[1:])) for each in backlog
    ]
    return table(head.split(", "), rows)


def _cold_table(cold: Iterable[dict[str, Any]]) -> str:
    head = "pending, first response of `pixelfast serve`, of `pixelfast collect`"
    rows = [
        (
            f"{each['pending_bytes'] / 2**30:.1f} GiB, {each['pending_events']:,} events",
            *(
                f"{spread(each[name])} s"
                for name in ("first_response_s", "collect_first_response_s")
            ),
        )
        for each in cold
    ]
    return table(head.split(", "), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--gib", type=float, default=10, help="of the largest backlog")
    options = parser.parse_args()
    run(options.rounds, options.starts, int(options.gib * 2**30))
