"""Cost of replication to Kafka, and of delivery from its topic."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from struct import Struct
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.backlog import EVENTS_A_FRAME, SOURCE, fill
from benchmarks.bench_delivery import deliver_on_one_core
from benchmarks.corpus import write_wrk_script
from benchmarks.goals import goals_of
from benchmarks.machine import print_head
from benchmarks.openloop import Offered, offer
from benchmarks.report import Section, spread, table
from benchmarks.servers import Running, free_port, running, wait_for, wait_until
from benchmarks.wrk import LOAD_CORE, SERVER_CORE, Round, cpu_seconds, measure
from tests.deliver.products.real.kafka_broker import VERSION, KafkaBroker
from tests.deliver.products.real.processes import Absent
from tests.deliver.products.topics import Topics

__all__ = ["run"]

CONNECTIONS = (64, 256)
SYNCED, REPLICATED = "synced", "replicated"
PARTITIONS = 4
DELIVERERS = (1, 2)
ROUND_S = 2
STEADY_SHARE = 0.5
STEADY_CONNECTIONS = 256
PATIENCE_S = 60.0
METHOD = f"""\
Two collectors run, each one process on one core: one syncs each event before its response, the
other replicates it to a topic of a real broker (Apache Kafka {VERSION}, one node, acks = all). wrk
and the broker share the other core, so the broker takes time from wrk; with replication, requests/s
are therefore those of both together. Load is sent to the two in turn, in short rounds. CPU is the
user and system time of the collector, with the threads of librdkafka; the ratio is that of the two
loads of a round. "Events a message" counts the messages of the topic. The latency is measured under
a constant load (benchmarks/openloop.py) of half the lower of the two rates that wrk achieved
immediately before, and counts from the time at which a request was due. A response other than 200
is an error, and so is an event that is missing in the topic at the end.

For delivery, the events of the 1,000 pixels of the load are replicated to a topic with
{PARTITIONS} partitions. `pixelfast deliver` runs as one process on the server's core, or as two, of
which the second shares the other core with the broker. When the processes have divided the
partitions of a new topic among them, the messages are copied to it, and the events are written to
files. Time and CPU are measured from the beginning of the copy to the commit of the last event.
For comparison, one process delivers the same events from a spool (see the benchmark of draining a
backlog). An event that is not written exactly once is an error. The figures are medians, with the
minimum and the maximum in parentheses."""

_EVENTS, _EVENTS_AT = Struct("<I"), 16  # the number of events in a frame, see spool-format.md
_SETTINGS = """
data_dir = "{data}"
log.level = "error"
server.admin = ""
[[sources]]
name = "{source}"
write_keys = ["wk-demo"]
"""
_CLUSTER = """
[cluster]
brokers = ["{broker}"]
topic = "{topic}"
min_insync = 1
max_replication_wait_s = 5
"""
_DESTINATION = """
[[destinations]]
name = "{name}"
type = "file"
start = "earliest"
path = "{path}"
"""


class Delivered(NamedTuple):
    """The result of delivering the events of a topic."""

    events_per_s: float
    cpu_us: float  # an event, of all processes
    shares: list[float]  # of the events, by process


class Cluster:
    """A broker, and processes of pixelfast that use it."""

    def __init__(self, folder: Path, broker: KafkaBroker) -> None:
        self.topics = Topics(broker.address)
        self._folder = folder
        self._broker = broker
        self._admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})

    def settings(self, name: str, topic: str = "", destination: str = "") -> Path:
        """Write the settings of a process with a data directory of its own."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        text = _SETTINGS.format(data=folder / "data", source=SOURCE)
        if topic:
            text += _CLUSTER.format(broker=self._broker.address, topic=topic)
        if destination:
            text += _DESTINATION.format(name=destination, path=folder / destination)
        (folder / "pixelfast.toml").write_text(text)
        return folder / "pixelfast.toml"

    @contextmanager
    def collecting(self, settings: Path, *options: str) -> Iterator[Running]:
        """Run `pixelfast collect`."""
        port = free_port()
        command = [sys.executable, "-m", "pixelfast", "collect", "-c", str(settings), *options]
        with running([*command, "--listen", f"127.0.0.1:{port}"]) as process:
            wait_for(port, process)
            yield Running(process.pid, port, "wk-demo")

    def _properties(self, group: str) -> dict[str, Any]:
        return {"bootstrap.servers": self._broker.address, "group.id": group, "log_level": 0}

    def messages(self, topic: str) -> dict[int, int]:
        """Return how many messages each partition has."""
        consumer = Consumer(self._properties("bench"))
        try:
            return {
                each.partition: consumer.get_watermark_offsets(each, timeout=10)[1]
                for each in _places(topic)
            }
        finally:
            consumer.close()

    def settled(self, topic: str, group: str) -> dict[int, int]:
        """Return the committed offset of each partition; 0 if there is none."""
        consumer = Consumer(self._properties(group))
        try:
            found = consumer.committed(_places(topic), timeout=10)
            return {each.partition: max(0, each.offset) for each in found}
        finally:
            consumer.close()

    def read(self, topic: str) -> Iterator[list[Message]]:
        """Yield all messages of a topic, some at a time."""
        consumer = Consumer(self._properties("bench"))
        left = sum(self.messages(topic).values())
        consumer.assign(_places(topic))
        while left:
            messages = consumer.consume(min(left, 100), PATIENCE_S)
            if not messages:
                raise RuntimeError(f"{left} messages of {topic} cannot be read")
            left -= len(messages)
            yield messages
        consumer.close()

    def fill(self, topic: str, count: int) -> None:
        """Replicate `count` events to a new topic, the same number to each partition."""
        self.topics.create(topic, PARTITIONS)
        settings = self.settings("source", topic)
        for slot in range(PARTITIONS):  # consecutive slots have different partitions
            fill(settings.parent / "data", count // PARTITIONS, slot=slot)
        frames = count // EVENTS_A_FRAME
        with self.collecting(settings, "--slot", str(PARTITIONS)):
            wait_until(
                lambda: sum(self.messages(topic).values()) == frames,
                f"{frames} messages stored in {topic}",
                PATIENCE_S,
            )

    def write(self, topic: str, messages: list[Message]) -> None:
        """Copy messages to the same partitions of another topic."""
        producer = Producer({**self._properties("bench"), "compression.type": "lz4"})
        for each in messages:
            producer.produce(
                topic,
                each.value(),
                partition=each.partition() or 0,
                timestamp=each.timestamp()[1],
                headers=each.headers(),
            )
        if producer.flush(PATIENCE_S):
            raise RuntimeError(f"messages could not be written to {topic}")

    def partitions_of(self, group: str) -> list[int]:
        """Return how many partitions each member of a group has."""
        asked = self._admin.describe_consumer_groups([group])
        members = asked[group].result(PATIENCE_S).members
        return [len(each.assignment.topic_partitions) for each in members]

    def deliver(self, messages: list[Message], processes: int, name: str) -> Delivered:
        """Deliver messages from a new topic to a new destination.

        Raises:
            RuntimeError: an event is not delivered in time, or not once.
        """
        topic, group = self.topics.create(name, PARTITIONS), f"pixelfast.{name}"
        settings = [self.settings(f"{name}-{n}", topic, name) for n in range(processes)]
        with ExitStack() as stack:
            pids = [
                stack.enter_context(
                    running(
                        [sys.executable, "-m", "pixelfast", "deliver", "-c", str(each)],
                        cores=str((SERVER_CORE, LOAD_CORE)[n]),
                    )
                ).pid
                for n, each in enumerate(settings)
            ]
            fair = [PARTITIONS // processes] * processes
            wait_until(lambda: self.partitions_of(group) == fair, f"{fair} partitions", PATIENCE_S)
            began_s, began_cpu_s = time.monotonic(), sum(map(cpu_seconds, pids))
            self.write(topic, messages)
            end = self.messages(topic)
            wait_until(lambda: self.settled(topic, group) == end, "all delivered", PATIENCE_S)
            seconds = time.monotonic() - began_s
            cpu_s = sum(map(cpu_seconds, pids)) - began_cpu_s
        self.topics.delete(topic)
        count = events_in(messages)
        written = [_lines_in(each.parent / name) for each in settings]
        if sum(written) != count:
            raise RuntimeError(f"{sum(written):,} of {count:,} events are in the files")
        return Delivered(count / seconds, cpu_s * 1e6 / count, [each / count for each in written])

    def deliver_from_spool(self, count: int, name: str) -> Delivered:
        """Deliver as many events from a spool."""
        settings = self.settings(name, destination=name)
        data = settings.parent / "data"
        fill(data, count)
        drained = deliver_on_one_core(settings, data, count, [name])
        return Delivered(*drained, [1.0])


def _places(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]


def events_in(messages: list[Message]) -> int:
    """Return how many events the frames of messages hold."""
    return sum(_EVENTS.unpack_from(each.value() or b"", _EVENTS_AT)[0] for each in messages)


def _lines_in(folder: Path) -> int:
    return sum(each.read_bytes().count(b"\n") for each in folder.rglob("*") if each.is_file())


def run(rounds: int = 9, count: int = 100_000) -> Section:
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
            cluster = Cluster(Path(place), broker)
            collected, figures = _collect(cluster, rounds)
            delivered, figures["delivery"] = _deliver(cluster, max(1, rounds // 3), count)
            cluster.topics.close()
    text = f"{collected}\n\n{delivered}"
    print(f"\n{text}\n\n{goals_of('cluster', figures)}")
    return Section(text, figures)


def _collect(cluster: Cluster, rounds: int) -> tuple[str, dict[str, Any]]:
    topic = cluster.topics.create("collected", PARTITIONS)
    script = cluster.settings(SYNCED).parent / "pixels.lua"
    write_wrk_script(script, "wk-demo")
    found: dict[str, dict[str, list[Round]]] = {}
    sizes: dict[str, list[float]] = {}
    steady: dict[str, list[Offered]] = {SYNCED: [], REPLICATED: []}
    responses = 0
    with ExitStack() as stack:
        servers = {
            SYNCED: stack.enter_context(cluster.collecting(cluster.settings(SYNCED))),
            REPLICATED: stack.enter_context(
                cluster.collecting(cluster.settings(REPLICATED, topic))
            ),
        }
        for name, server in servers.items():
            warm_up = measure(server.pid, server.port, script, 64, 2)
            responses += warm_up.requests if name == REPLICATED else 0
        for number in range(rounds):
            for connections in CONNECTIONS:
                for name in sorted(servers, reverse=bool(number % 2)):
                    before = sum(cluster.messages(topic).values())
                    server = servers[name]
                    one = measure(server.pid, server.port, script, connections, ROUND_S)
                    own = found.setdefault(str(connections), {SYNCED: [], REPLICATED: []})
                    own[name].append(one)
                    if name == REPLICATED:
                        responses += one.requests
                        messages = sum(cluster.messages(topic).values()) - before
                        sizes.setdefault(str(connections), []).append(one.requests / messages)
                    print(
                        f"  round {number + 1} {name:10} c{connections:<4} "
                        f"{one.requests_per_s:8,.0f}/s {one.cpu_us:6.2f} µs",
                        flush=True,
                    )
            last = found[str(STEADY_CONNECTIONS)]
            rate = STEADY_SHARE * min(own[-1].requests_per_s for own in last.values())
            for name, server in servers.items():
                each = offer(server.port, "wk-demo", rate, 1, STEADY_CONNECTIONS)
                steady[name].append(each)
                responses += each.responses if name == REPLICATED else 0
    stored = sum(map(events_in, cluster.read(topic)))
    if stored < responses:
        raise RuntimeError(f"{responses:,} events received a 200, {stored:,} are in the topic")
    text = _table_of_costs(found, sizes) + "\n\n" + _table_of_latencies(steady)
    figures = {
        name: {count: [each._asdict() for each in own[name]] for count, own in found.items()}
        for name in (SYNCED, REPLICATED)
    }
    latencies = {name: [each._asdict() for each in own] for name, own in steady.items()}
    return text, {"collectors": figures, "steady": latencies}


def _table_of_costs(found: dict[str, dict[str, list[Round]]], sizes: dict[str, list[float]]) -> str:
    rows = []
    for count, by_name in found.items():
        pairs = zip(by_name[REPLICATED], by_name[SYNCED], strict=True)
        more = {
            SYNCED: ("", ""),
            REPLICATED: (
                spread([one.cpu_us / other.cpu_us for one, other in pairs]),
                spread(sizes[count], 0),
            ),
        }
        for name, own in by_name.items():
            ratio, size = more[name]
            cost = spread([each.cpu_us for each in own])
            rate = spread([each.requests_per_s for each in own], 0)
            rows.append((f"{name}, c{count}", cost, ratio, rate, size))
    return table(("collector", "CPU µs/event", ": synced", "requests/s", "events a message"), rows)


def _table_of_latencies(steady: dict[str, list[Offered]]) -> str:
    rows = [
        (
            name,
            f"{median(each.offered_per_s for each in own):,.0f}",
            spread([each.p50_ms for each in own]),
            spread([each.p99_ms for each in own]),
        )
        for name, own in steady.items()
    ]
    return table(("constant load", "offered/s", "p50 ms", "p99 ms"), rows)


def _deliver(cluster: Cluster, rounds: int, count: int) -> tuple[str, dict[str, Any]]:
    cluster.fill("source", count)
    messages = [each for some in cluster.read("source") for each in some]
    found: dict[str, list[Delivered]] = {}
    for number in range(rounds):
        cases = {
            "spool, 1 process": cluster.deliver_from_spool(count, f"spool-{number}"),
            **{
                f"topic, {processes} process{'es' * (processes > 1)}": cluster.deliver(
                    messages, processes, f"files-{number}-{processes}"
                )
                for processes in DELIVERERS
            },
        }
        for name, own in cases.items():
            found.setdefault(name, []).append(own)
            shares = " ".join(f"{share:.0%}" for share in own.shares)
            print(
                f"  round {number + 1} {name:20} {own.events_per_s:10,.0f}/s {own.cpu_us:5.2f} µs "
                f"{shares}",
                flush=True,
            )
    rows = [
        (
            name,
            spread([each.events_per_s for each in own], 0),
            spread([each.cpu_us for each in own]),
            " : ".join(
                f"{median(shares):.0%}"
                for shares in zip(*(each.shares for each in own), strict=True)
            ),
        )
        for name, own in found.items()
    ]
    head = ("delivery to files from", "events/s", "CPU µs/event", "share of each process")
    figures = {name: [each._asdict() for each in own] for name, own in found.items()}
    return table(head, rows), figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    run(options.rounds, options.count)
