"""CPU time and bytes that an event of a cluster costs collectors, brokers and delivery."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
    AdminClient,
    NewTopic,
)

from benchmarks.corpus import write_wrk_script
from benchmarks.machine import print_head
from benchmarks.openloop import offer
from benchmarks.receiver import receiver
from benchmarks.report import Section, spread, table
from benchmarks.servers import Running, free_port, running, wait_for, wait_until
from benchmarks.wrk import SERVER_CORE, cpu_seconds, load
from pixelfast.deliver.cluster.checkpoint import decode
from tests.deliver.products.real.kafka_broker import VERSION, KafkaCluster
from tests.deliver.products.real.processes import Absent

__all__ = ["run"]

METHOD = f"""\
Three brokers (Apache Kafka {VERSION}, KRaft, each also a controller) run on one machine, and may
use all cores. Topics have one partition, three replicas and `min.insync.replicas` = 2.

Brokers: a producer with the settings of `[cluster]` sends messages at a constant rate, and a
consumer reads them. CPU is the user and system time of a broker per message, without its CPU time
when idle and without the compilers of its JVM, which work for minutes after a start. The first
two minutes are not measured.

Collector and delivery: the load is 1,000 pixels like the documented track call, at a constant rate
(benchmarks/openloop.py) or from wrk at full speed, on another core than the collector. CPU is the
user and system time of the collector until the brokers have the last event. Bytes are those of a
message before its compression, and those of the topic's files. Then `pixelfast deliver` reads the
topic and sends the events to an HTTP server that responds with 200 (`json_array`, all other
settings at their defaults); CPU is that of its process from the assignment of the partition to the
commit of the last event.

All cases take turns. The figures are medians, with the minimum and the maximum in parentheses."""

KEY = "wk-bench"
CASES = ((1_000, 16), (0, 64), (0, 256))  # rate (0: full speed), connections
MESSAGES = ((200, 8_000), (1_000, 8_000), (200, 60_000))  # rate, size in bytes
_START_S, _DELIVER_S = 60.0, 60.0
_IDLE_S, _WARM_UP_S, _PHASE_S = 5.0, 120.0, 10.0
_SETTINGS = f"""
[log]
level = "info"
format = "json"
[spool]
max_wait_s = 30
[[sources]]
name = "web"
write_keys = ["{KEY}"]
[cluster]
brokers = ["{{brokers}}"]
topic = "{{topic}}"
max_replication_wait_s = 5
[[destinations]]
name = "hook"
type = "http"
url = "http://127.0.0.1:{{port}}/hook"
start = "earliest"
"""


class Cost(NamedTuple):
    """What one event cost, in µs of CPU time and in bytes."""

    events_per_s: float
    events_per_message: float
    frame_bytes: float  # in the spool
    topic_bytes: float  # in the topic, of one replica
    collector_us: float
    deliverer_us: float


class BrokerCost(NamedTuple):
    """What one message cost, in µs of CPU time."""

    leader_us: float
    follower_us: float


class Brokers:
    """Three running brokers, on the core of the load."""

    def __init__(self, folder: Path, cluster: KafkaCluster) -> None:
        self._folder = folder
        self._brokers = cluster.brokers
        self.addresses = '", "'.join(cluster.addresses)
        self.bootstrap = ",".join(cluster.addresses)
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self._topic, self._leader = "messages", self.create("messages")
        self._stop = threading.Event()
        self._consumer = threading.Thread(target=self._consume)
        self._consumer.start()
        self._idle_share = 0.0

    def close(self) -> None:
        self._stop.set()
        self._consumer.join()

    def warm_up(self) -> None:
        """Load the brokers until they work as fast as they will, and measure their idle time."""
        self.cost(1_000, 8_000, _WARM_UP_S)
        before = self.cpu_s()
        time.sleep(_IDLE_S)
        self._idle_share = (sum(self.cpu_s()) - sum(before)) / _IDLE_S / len(before)

    def _consume(self) -> None:
        own = {"bootstrap.servers": self.bootstrap, "group.id": "messages"}
        consumer = Consumer({**own, "enable.auto.commit": False})
        consumer.assign([TopicPartition(self._topic, 0, OFFSET_END)])
        while not self._stop.is_set():
            consumer.consume(100, 0.1)
        consumer.close()

    def cost(self, rate: int, size: int, seconds: float = _PHASE_S) -> BrokerCost:
        """Send messages, and return the CPU time of the brokers for one."""
        failed: list[object] = []

        def on_report(error: object, _message: object) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "queue.buffering.max.messages": 0,
            }
        )
        body = os.urandom(size)
        before, began_s, sent = self.cpu_s(), time.monotonic(), 0
        while (now_s := time.monotonic()) < began_s + seconds:
            while sent < rate * (now_s - began_s):
                producer.produce(self._topic, body, on_delivery=on_report)
                sent += 1
            producer.poll(0.002)
        if producer.flush(_START_S) or failed:
            raise RuntimeError(f"messages are not stored: {failed[:1]}")
        idle_s = self._idle_share * (time.monotonic() - began_s)
        used_us = [(b - a - idle_s) * 1e6 / sent for a, b in zip(before, self.cpu_s(), strict=True)]
        leader_us = used_us.pop(self._leader)
        return BrokerCost(leader_us, sum(used_us) / len(used_us))

    def cpu_s(self) -> list[float]:
        """Return the CPU time of each broker, without the compilers of its JVM."""
        return [_without_compilers_s(each.pid) for each in self._brokers]

    def create(self, topic: str) -> int:
        """Create a topic; return the index of the broker that leads its partition."""
        new = NewTopic(topic, 1, 3, config={"min.insync.replicas": "2", "retention.ms": "-1"})
        self._admin.create_topics([new])[topic].result(_START_S)

        def leader() -> int:
            found = self._admin.list_topics(topic, _START_S).topics[topic].partitions
            return found[0].leader if found else -1

        wait_until(lambda: leader() > 0, f"topic {topic}")
        return leader() - 1

    def log_bytes(self, topic: str, leader: int) -> int:
        folder = self._folder / f"node-{leader + 1}" / "data" / f"{topic}-0"
        return sum(each.stat().st_size for each in folder.glob("*.log"))

    def messages(self, topic: str) -> int:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), _START_S)
        consumer.close()
        return int(high)

    def value_bytes(self, topic: str) -> int:
        """Return the size of all messages of a topic before their compression."""
        left = self.messages(topic)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        size = 0
        while left:
            found = [each for each in consumer.consume(1000, 1.0) if each.error() is None]
            size += sum(len(each.value() or b"") for each in found)
            left -= len(found)
        consumer.close()
        return size


def _without_compilers_s(pid: int) -> float:
    ticks = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended
            if "Compiler" not in (thread / "comm").read_text():
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _collecting(settings: Path, folder: Path) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "pixelfast", "collect", "-c", str(settings)]
    command += ["--data-dir", str(folder), "--listen", f"127.0.0.1:{port}"]
    with running(command) as process:
        wait_for(port, process)
        yield Running(process.pid, port, KEY)


def _load(rate: int, connections: int, port: int, seconds: float, script: Path) -> int:
    if rate:
        return offer(port, KEY, rate, seconds, connections).responses
    return load(port, script, connections, seconds).requests


def measure(brokers: Brokers, topic: str, rate: int, connections: int, seconds: float) -> Cost:
    """Measure one case with a new topic."""
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place, receiver() as received:
        folder = Path(place)
        leader = brokers.create(topic)
        settings = folder / "pixelfast.toml"
        settings.write_text(
            _SETTINGS.format(brokers=brokers.addresses, topic=topic, port=received.port)
        )
        write_wrk_script(script := folder / "pixels.lua", KEY)
        with _collecting(settings, folder / "data") as collector:
            warm = _load(0, connections, collector.port, 2, script)
            _wait_for_quiet(lambda: brokers.messages(topic))
            messages, size = brokers.messages(topic), brokers.log_bytes(topic, leader)
            before_s, began_s = cpu_seconds(collector.pid), time.monotonic()
            events = _load(rate, connections, collector.port, seconds, script)
            loaded_s = time.monotonic()
            _wait_for_quiet(lambda: brokers.messages(topic))
            used_s = cpu_seconds(collector.pid) - before_s
            messages, size = (
                brokers.messages(topic) - messages,
                brokers.log_bytes(topic, leader) - size,
            )
        deliverer_us = _deliver(brokers, settings, folder / "deliver", topic, warm + events)
        return Cost(
            events / (loaded_s - began_s),
            events / messages,
            brokers.value_bytes(topic) / (warm + events),
            size / events,
            used_s * 1e6 / events,
            deliverer_us,
        )


def _wait_for_quiet(count: Callable[[], int]) -> None:
    """Wait until a number does not change for half a second."""
    last = -1
    while last != (now := count()):
        last = now
        time.sleep(0.5)


def _deliver(brokers: Brokers, settings: Path, data: Path, topic: str, events: int) -> float:
    """Return the CPU time of delivery per event."""
    log = data.with_suffix(".log")
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "pixelfast", "deliver"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "-c", str(settings), "--data-dir", str(data)],
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    consumer = Consumer({"bootstrap.servers": brokers.bootstrap, "group.id": "pixelfast.hook"})
    try:
        wait_until(lambda: "partitions_assigned" in log.read_text(), "an assignment", _DELIVER_S)
        before_s = cpu_seconds(process.pid)

        def delivered() -> int:
            (found,) = consumer.committed([TopicPartition(topic, 0)], _START_S)
            if not found.metadata:
                return 0
            return decode(found.metadata, found.offset).totals.get("delivered", 0)

        wait_until(lambda: delivered() >= events, f"{events:,} delivered events", _DELIVER_S)
        return (cpu_seconds(process.pid) - before_s) * 1e6 / events
    finally:
        consumer.close()
        process.terminate()
        process.wait(30)


def run(rounds: int = 3, seconds: float = 5.0) -> Section:
    """Measure, and print each result at once."""
    print_head(__doc__ or "", METHOD)
    # The JVM compiles completely, as in production; tests save that time.
    os.environ["_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=4"
    found: dict[str, list[Cost]] = {}
    messages: dict[str, list[BrokerCost]] = {}
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        try:
            cluster = KafkaCluster(Path(place))
        except Absent as why:
            print(text := f"Not measured: {why}.")
            return Section(text, {})
        with cluster, contextlib.closing(Brokers(Path(place), cluster)) as brokers:
            brokers.warm_up()
            for number in range(rounds):
                for rate, size in MESSAGES:
                    name = f"{rate:,} messages/s of {size // 1000} kB"
                    messages.setdefault(name, []).append(brokers.cost(rate, size))
                    _note(name, messages)
                for rate, connections in CASES:
                    name = (
                        f"{rate:,} pixels/s" if rate else f"{connections} connections, full speed"
                    )
                    topic = f"bench-{rate}-{connections}-{number}"
                    cost = measure(brokers, topic, rate, connections, seconds)
                    found.setdefault(name, []).append(cost)
                    _note(name, found)
    pixels_head = ["load", "events/s", "events/message", "bytes/event", "bytes/event in the topic"]
    pixels_head += ["collector µs/event", "delivery µs/event"]
    messages_head = ["messages", "leader µs/message", "each follower µs/message"]
    text = table(pixels_head, _rows(found)) + "\n\n" + table(messages_head, _rows(messages))
    print("\n" + text)
    figures = {"pixels": found, "messages": messages}
    return Section(text, figures)


def _note(name: str, found: Mapping[str, Sequence[tuple[float, ...]]]) -> None:
    print(f"  {name:28}", *(f"{each:9.2f}" for each in found[name][-1]), flush=True)


def _rows(found: Mapping[str, Sequence[tuple[float, ...]]]) -> list[tuple[str, ...]]:
    return [
        (name, *(spread(column) for column in zip(*costs, strict=True)))
        for name, costs in found.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    run(options.rounds, options.seconds)
