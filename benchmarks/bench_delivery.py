"""How fast does a backlog reach one HTTP destination, and what does an event cost?"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.corpus import targets
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import free_port, wait_for
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, cpu_seconds
from pixelfast.explain import Explainer
from pixelfast.spool import DataDir, SlotFiles
from pixelfast.spool.batch import Batch

__all__ = ["run"]

METHOD = """\
A spool is filled with the events of the 1,000 pixels of the load, then delivery (`pixelfast
deliver`, on one core) brings all of them to one HTTP destination on the other: a server that reads
each request to its end and answers 200. From the first plan to the record of the last event. CPU
is user and system time of the delivery process meanwhile. Medians; in brackets the least and the
most."""

EVENTS_A_FRAME = 250
PATIENCE_S = 120.0


def fill(folder: Path, count: int) -> None:
    """A spool as a collector leaves it."""
    explainer = Explainer(None, full=True)
    events = [
        orjson.dumps(orjson.loads(explainer.line(each.encode()))["event"]) for each in targets("k")
    ]
    files = SlotFiles(DataDir.open(folder), 0, 64 * 2**20)
    segment = files.create()
    now_ms = time.time_ns() // 1_000_000
    for start in range(0, count, EVENTS_A_FRAME):
        batch = Batch()
        for n in range(start, min(start + EVENTS_A_FRAME, count)):
            batch.add(0, events[n % len(events)], now_ms)
        if segment.offset + batch.sealed_bytes([b"demo"]) > files.segment_bytes:
            files.retire(segment, is_sound=True)
            segment = files.create()
        batch.seal([b"demo"], segment.id, segment.offset, start)
        image = batch.sealed()
        with open(segment.fd, "r+b", closefd=False) as file:
            file.seek(segment.offset)
            file.write(image)
        segment.offset += len(image)
    files.retire(segment, is_sound=True)
    files.close()


@contextmanager
def receiver() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The destination, on the other core."""
    port = free_port()
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.bench_delivery"]
    process = subprocess.Popen([*command, "--receive", str(port)])
    try:
        wait_for(port, process)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


class Receiver(asyncio.Protocol):
    """Reads requests with a Content-Length and answers each with 200."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport
        self._head = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left == 0:
                    self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.lower().index(b"content-length: ", 0, end) + 16
            self._left = int(self._head[at : self._head.index(b"\r\n", at)])
            data, self._head = self._head[end + 4 :], b""


async def receive(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port)
    await server.serve_forever()


_SETTINGS = """
data_dir = "{data}"
[[sources]]
name = "demo"
write_keys = ["k"]
[[destinations]]
name = "hook"
type = "http"
url = "http://127.0.0.1:{port}/"
start = "earliest"
format = "{form}"
max_events = {events}
"""


def drain(folder: Path, port: int, count: int, form: str, events: int) -> tuple[float, float]:
    """Events a second, and CPU µs an event."""
    settings = folder / "pixelfast.toml"
    data = folder / "data"
    settings.write_text(_SETTINGS.format(data=data, port=port, form=form, events=events))
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "pixelfast", "deliver"]
    process = subprocess.Popen([*command, "-c", str(settings)], stdout=subprocess.DEVNULL)
    began_s = began_cpu_s = 0.0
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            delivered = _delivered(data)
            now_s = time.monotonic()
            if not began_s and (data / "dest" / "hook" / "state.db").exists():
                began_s, began_cpu_s = now_s, cpu_seconds(process.pid)
            if delivered >= count:
                break
            if now_s > deadline or process.poll() is not None:
                raise RuntimeError(f"{delivered:,} of {count:,} events were delivered")
            time.sleep(0.01)
        cpu_us = (cpu_seconds(process.pid) - began_cpu_s) * 1e6 / count
        return count / (now_s - began_s), cpu_us
    finally:
        process.terminate()
        process.wait(30)


def _delivered(data: Path) -> int:
    import sqlite3

    path = data / "dest" / "hook" / "state.db"
    if not path.exists():
        return 0
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            row = db.execute("SELECT value FROM counter WHERE name = 'delivered'").fetchone()
        finally:
            db.close()
    except sqlite3.Error:  # being made, or locked
        return 0
    return int(row[0]) if row else 0


def run(rounds: int = 3, count: int = 1_000_000) -> Section:
    """Measure and print as it goes; the figures are rates and costs, round by round."""
    print_head(__doc__ or "", METHOD)
    rows, figures = [], {}
    for form, events in (("json_array", 500), ("json_array", 2000), ("ndjson", 500)):
        found = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
                folder = Path(place)
                fill(folder / "data", count)
                with receiver() as (port, _):
                    found.append(drain(folder, port, count, form, events))
            print(
                f"  {form:10} {events:5} {found[-1][0]:10,.0f}/s {found[-1][1]:5.2f} µs", flush=True
            )
        rates, costs = [each[0] for each in found], [each[1] for each in found]
        rows.append((form, f"{events:,}", spread(rates, 0), spread(costs)))
        figures[f"{form} {events}"] = {"events_per_s": rates, "cpu_us": costs}
    text = table(("format", "events a batch", "events/s", "CPU µs/event"), rows)
    print("\n" + text)
    return Section(text, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receive", type=int, metavar="PORT", help="be the destination")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.receive:
        uvloop.run(receive(options.receive))
    else:
        run(options.rounds, options.count)
