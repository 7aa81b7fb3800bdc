"""Speed and cost of delivering a backlog to a Kafka broker."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.backlog import SOURCE, fill
from benchmarks.bench_delivery import Backlog, Drained, deliver_on_one_core, drain
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.wrk import LOAD_CORE
from tests.deliver.products.real.kafka_broker import VERSION, KafkaBroker
from tests.deliver.products.real.processes import Absent
from tests.deliver.products.topics import Topics

__all__ = ["run"]

METHOD = f"""\
A spool is filled with the events of the 1,000 pixels of the load. Then delivery (`pixelfast
deliver`, one process on one core) sends all of them to a topic with four partitions of a real
broker (Apache Kafka {VERSION}, one node) on the other core. A message is one event or a batch of
events (`message`); all other settings are the defaults. For comparison, the same backlog is sent
to an HTTP server that responds with 200 (`ndjson`, 500 events a batch). Time is measured from the
first plan to the record of the last event; CPU is the user and system time of the delivery
process, with the threads of librdkafka. An event that is not stored exactly once is an error. The
runs take turns in each round. The figures are medians, with the minimum and the maximum in
parentheses."""

CASES = (("event", "zstd"), ("event", "lz4"), ("event", "none"), ("batch", "zstd"))
PARTITIONS = 4

_SETTINGS = """
data_dir = "{data}"
[log]
level = "warning"
[[sources]]
name = "{source}"
write_keys = ["k"]
[[destinations]]
name = "stream"
type = "kafka"
start = "earliest"
brokers = ["{broker}"]
topic = "{topic}"
message = "{message}"
compression = "{compression}"
"""


def drain_into_topic(
    backlog: Backlog, broker: KafkaBroker, topic: str, message: str, compression: str
) -> Drained:
    """Deliver the backlog to a new topic.

    Raises:
        RuntimeError: an event is not stored, or is stored twice.
    """
    topics = Topics(broker.address)
    topics.create(topic, PARTITIONS)
    with backlog.copied() as (data, settings):
        settings.write_text(
            _SETTINGS.format(
                data=data,
                source=SOURCE,
                broker=broker.address,
                topic=topic,
                message=message,
                compression=compression,
            )
        )
        drained = deliver_on_one_core(settings, data, backlog.events, ["stream"])
    stored = sum(each.value.count(b'"messageId"') for each in topics.read(topic))
    topics.delete(topic)
    topics.close()
    if stored != backlog.events:
        raise RuntimeError(f"{stored:,} of {backlog.events:,} events are stored")
    return drained


def run(rounds: int = 3, count: int = 200_000) -> Section:
    """Measure, and print each result at once; the figures are rates and costs, round by round."""
    print_head(__doc__ or "", METHOD)
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        folder = Path(place) / "broker"
        folder.mkdir()
        try:
            broker = KafkaBroker(folder)
        except Absent as why:
            print(text := f"Not measured: {why}.")
            return Section(text, {})
        with broker:
            subprocess.run(
                ["taskset", "-a", "-p", "-c", str(LOAD_CORE), str(broker.pid)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            backlog = Backlog(Path(place) / "data", count, fill(Path(place) / "data", count))
            found: dict[str, list[Drained]] = {}
            for number in range(rounds):
                for message, compression in CASES:
                    topic = f"{message}-{compression}-{number}"
                    own = drain_into_topic(backlog, broker, topic, message, compression)
                    _note(found, number, f"kafka, {message}, {compression}", own)
                _note(found, number, "http, ndjson", drain(backlog, 1, "ndjson", 500))
    rows = []
    figures: dict[str, Any] = {}
    for name, all_rounds in found.items():
        rates, costs = zip(*all_rounds, strict=True)
        rows.append((name, spread(rates, 0), spread(costs)))
        figures[name] = {"events_per_s": rates, "cpu_us": costs}
    head = ("destination, message, compression", "events/s", "CPU µs/event")
    text = table(head, rows)
    print("\n" + text)
    return Section(text, figures)


def _note(found: dict[str, list[Drained]], number: int, name: str, drained: Drained) -> None:
    found.setdefault(name, []).append(drained)
    print(
        f"  round {number + 1} {name:20} {drained.events_per_s:10,.0f}/s {drained.cpu_us:5.2f} µs",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    run(options.rounds, options.count)
