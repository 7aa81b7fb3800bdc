"""Speed and cost of delivering a backlog to PostgreSQL."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.backlog import SOURCE, events, fill
from benchmarks.bench_delivery import Backlog, Drained, deliver_on_one_core, drain
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.wrk import LOAD_CORE
from pixelfast.deliver.schemas.postgres import create_statements
from tests.deliver.products.real.postgres_server import (
    PASSWORD,
    USER,
    PostgresServer,
    postgres_server,
)
from tests.deliver.products.real.processes import Absent

__all__ = ["run"]

METHOD = """\
A spool is filled with events, each with its own `messageId`. Then delivery (`pixelfast deliver`,
one process on one core) sends them over a Unix socket to a real PostgreSQL server on the other
core, which syncs its log at every commit. The table is the one that `pixelfast schema postgres`
prints, and it is empty before each run. The HTTP destination of the first row is the server that
only reads requests. Time and CPU are measured as in the previous section; the CPU time is that of
the delivery process, without the server. A run fails unless every event is in the table once. The
runs take turns in each round. The figures are medians, with the minimum and the maximum in
parentheses."""

TABLE = "events"
EVENTS = (1000, 10_000)  # a batch
CONNECTIONS = (1, 4)
_OPTIONS = {"fsync": "on", "ssl": "off", "shared_buffers": "256MB", "max_wal_size": "4GB"}
_MESSAGE_ID = re.compile(rb'"messageId":"[^"]*"')
_SETTINGS = """
data_dir = "{data}"
[log]
level = "warning"
[[sources]]
name = "{source}"
write_keys = ["k"]
[[destinations]]
name = "warehouse"
type = "postgres"
host = "{server.folder}"
port = {server.port}
database = "postgres"
table = "{table}"
username = "{user}"
password = "{password}"
start = "earliest"
max_events = {events}
max_age_s = 0.05
concurrency = {connections}
"""


def _store(backlog: Backlog, server: PostgresServer, events: int, connections: int) -> Drained:
    server.sql(f"TRUNCATE {TABLE}")
    with backlog.copied() as (data, settings):
        options = {"data": data, "source": SOURCE, "server": server, "table": TABLE}
        options |= {"user": USER, "password": PASSWORD}
        settings.write_text(_SETTINGS.format(events=events, connections=connections, **options))
        drained = deliver_on_one_core(settings, data, backlog.events, ["warehouse"])
    (stored,) = server.sql(f"SELECT count(*) FROM {TABLE}")  # noqa: S608 - a constant
    if int(stored) != backlog.events:
        raise RuntimeError(f"the table has {stored} of {backlog.events:,} events")
    return drained


@contextmanager
def _backlog(count: int) -> Iterator[Backlog]:
    plain = events()
    own = [
        _MESSAGE_ID.sub(b'"messageId":"%s"' % str(uuid.UUID(int=n)).encode(), plain[n % 1000])
        for n in range(count)
    ]
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place) / "data"
        yield Backlog(folder, count, fill(folder, count, own=own))


@contextmanager
def _server() -> Iterator[PostgresServer]:
    """Start the server on the core of the load."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with postgres_server(**_OPTIONS) as server:
            server.sql(create_statements(TABLE, USER, "postgres"))
            os.sched_setaffinity(0, cores)
            yield server
    finally:
        os.sched_setaffinity(0, cores)


def run(rounds: int = 3, count: int = 100_000) -> Section:
    """Measure, and print each result at once; the figures are rates and costs, round by round."""
    print_head(__doc__ or "", METHOD)
    cases = [(events, connections) for events in EVENTS for connections in CONNECTIONS]
    found: dict[tuple[str, int, int], list[Drained]] = {}
    try:
        with _server() as server, _backlog(count) as backlog:
            for number in range(rounds):
                fake = drain(backlog, 1, "json_array", 2000)
                found.setdefault(("HTTP", 2000, 64), []).append(fake)
                for case in cases:
                    found.setdefault(("PostgreSQL", *case), []).append(
                        _store(backlog, server, *case)
                    )
                for key, own in found.items():
                    rate, cost = own[-1]
                    print(f"  round {number + 1} {key} {rate:10,.0f}/s {cost:5.2f} µs", flush=True)
    except Absent as why:
        print(f"\nskipped: {why}")
        return Section(f"Skipped: {why}.", {})
    rows, figures = [], {}
    for key, own in found.items():
        rates, costs = zip(*own, strict=True)
        name, events, connections = key
        rows.append((name, f"{events:,}", connections, spread(rates, 0), spread(costs)))
        figures[" ".join(map(str, key))] = {"events_per_s": rates, "cpu_us": costs}
    head = ("destination", "events a batch", "concurrency", "events/s", "CPU µs/event")
    text = table(head, rows)
    print("\n" + text)
    return Section(text, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    run(options.rounds, options.count)
