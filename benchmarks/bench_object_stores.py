"""Speed and cost of delivering a backlog to an object store."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.backlog import SOURCE, fill
from benchmarks.bench_delivery import Backlog, Drained, deliver_on_one_core
from benchmarks.machine import print_head
from benchmarks.receiver import receiver
from benchmarks.report import Section, spread, table
from benchmarks.wrk import LOAD_CORE
from tests.deliver.products.real.object_stores import KEYS, ObjectStore, object_store
from tests.deliver.products.real.processes import Absent

__all__ = ["run"]

METHOD = """\
A spool is filled with the events of the 1,000 pixels of the load. Then delivery (`pixelfast
deliver`, one process on one core) stores all of them as objects of at most 8 MiB before
compression, in two stores on the other core: SeaweedFS, which writes them to disk, and a fake,
which only reads each request to its end. The sizes of the objects in SeaweedFS are verified. Time
is measured from the first plan to the record of the last event. CPU is the user and system time of
all threads of the delivery process in that time. The events repeat after 1,000, so they compress
better than those of real pixels. The runs take turns in each round. The figures are medians, with
the minimum and the maximum in parentheses."""

FORMS = (("ndjson", "none"), ("ndjson", "gzip"), ("ndjson", "zstd"), ("parquet", "zstd"))
BUCKET = "events"

_SETTINGS = """
data_dir = "{data}"
[log]
level = "warning"
[[sources]]
name = "{source}"
write_keys = ["k"]
[[destinations]]
name = "store"
type = "s3"
bucket = "{bucket}"
endpoint = "http://127.0.0.1:{port}"
allow_http = true
access_key_id = "{key}"
secret_access_key = "{secret}"
start = "earliest"
format = "{form}"
compression = "{compression}"
max_bytes = "8MiB"
max_age_s = 0.05
verify_size = {verifies}
"""


class Case(NamedTuple):
    """A store and a form of objects."""

    store: str
    form: str
    compression: str


def drain(backlog: Backlog, port: int, case: Case, *, verifies: bool) -> Drained:
    """Deliver the backlog to a store.

    Raises:
        RuntimeError: an event was not delivered in time.
    """
    with backlog.copied() as (data, settings):
        settings.write_text(
            _SETTINGS.format(
                data=data,
                source=SOURCE,
                bucket=BUCKET,
                port=port,
                key=KEYS[0],
                secret=KEYS[1],
                form=case.form,
                compression=case.compression,
                verifies=str(verifies).lower(),
            )
        )
        return deliver_on_one_core(settings, data, backlog.events, ["store"])


@contextmanager
def _seaweedfs(folder: Path) -> Iterator[ObjectStore]:
    """Run SeaweedFS with an empty bucket, on the core of the load."""
    folder.mkdir()
    pinned = ("taskset", "-c", str(LOAD_CORE))
    with object_store("seaweedfs", folder, before=pinned) as store:
        store.new_bucket(BUCKET)
        yield store


def run(rounds: int = 3, count: int = 500_000) -> Section:
    """Measure, and print each result at once; the figures are rates and costs, round by round."""
    print_head(__doc__ or "", METHOD)
    found: dict[Case, list[Drained]] = {
        Case(store, *form): [] for form in FORMS for store in ("SeaweedFS", "fake")
    }
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place) / "data"
        backlog = Backlog(folder, count, fill(folder, count))
        try:
            for number in range(rounds):
                # A new one, because the space of deleted objects is not free at once.
                with _seaweedfs(Path(place) / f"seaweedfs-{number}") as store:
                    for case, own in found.items():
                        own.append(_one(case, backlog, store))
                        print(
                            f"  round {number + 1} {' '.join(case):24} "
                            f"{own[-1].events_per_s:10,.0f}/s {own[-1].cpu_us:5.2f} µs",
                            flush=True,
                        )
        except Absent as why:
            print(f"  skipped: {why}")
            return Section(f"Not measured: {why}.", {})
    rows = []
    figures = {}
    for case, own in found.items():
        rates, costs = zip(*own, strict=True)
        rows.append((*case, spread(rates, 0), spread(costs)))
        figures[" ".join(case)] = {"events_per_s": rates, "cpu_us": costs}
    text = table(("store", "format", "compression", "events/s", "CPU µs/event"), rows)
    print("\n" + text)
    return Section(text, figures)


def _one(case: Case, backlog: Backlog, store: ObjectStore) -> Drained:
    if case.store == "SeaweedFS":
        store.new_bucket(BUCKET)
        return drain(backlog, store.port, case, verifies=True)
    with receiver("--store") as fake:
        return drain(backlog, fake.port, case, verifies=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=500_000)
    options = parser.parse_args()
    run(options.rounds, options.count)
