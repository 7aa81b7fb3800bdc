"""Delivery from the topic of a cluster, with a real Kafka broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from pixelfast.cli import cli
from pixelfast.config import Cluster, Config, HttpDestination
from pixelfast.deliver.cluster.engine import ClusterEngine
from pixelfast.deliver.cluster.starts import note_starts
from pixelfast.deliver.outcomes import Accepted, Outcome, Rejected, Retry
from pixelfast.deliver.probe import MAX_PROBED
from pixelfast.deliver.timing import Timings
from pixelfast.spool import DataDir
from tests.deliver.cluster.partitions import Produced, Slot
from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.runners import AT_ONCE, FakeSender
from tests.deliver.running import run
from tests.deliver.spools import event
from tests.spools import open_data
from tests.waiting import until

PARTITIONS = 4
NODE = bytes(range(16))
TIMINGS = Timings(
    topic_s=0.3,
    max_look_pause_s=0.02,
    replay_s=0.1,
    quiet_s=0.3,
    figures_s=0.2,
    min_restart_s=0.1,
    revoke_s=0.3,
    stop_s=0.3,
)
SESSION = {
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "300",
    "topic.metadata.refresh.interval.ms": "300",
    "statistics.interval.ms": "20",  # callbacks of librdkafka at any time
}


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    """The topic of a test."""
    return topics.create(f"events-{abs(hash(request.node.name)):x}", PARTITIONS)


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


class Collectors:
    """Collectors that produce frames, one slot for each partition."""

    def __init__(self, kafka: KafkaBroker, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(  # it keeps the order of frames
            {"bootstrap.servers": kafka.address, "linger.ms": 1, "max.in.flight": 1}
        )
        now_ms = round(time.time() * 1000)
        self._slots = [Slot(NODE, number, received_ms=now_ms) for number in range(PARTITIONS)]
        self._last: dict[int, Produced] = {}
        self.events = 0
        self._failed: list[str] = []

    def add_partitions(self, count: int) -> None:
        """Use more partitions, each for a slot of its own."""
        first = len(self._slots)
        received_ms = self._slots[0].received_ms
        self._slots += [
            Slot(NODE, number, received_ms=received_ms) for number in range(first, first + count)
        ]

    def store(self, events: int, per_frame: int = 5, source: str = "web", padding: int = 0) -> None:
        """Store events in frames, in all partitions in turn."""
        for first in range(self.events, self.events + events, per_frame):
            stop = min(first + per_frame, self.events + events)
            partition = first // per_frame % len(self._slots)
            made = self._slots[partition].frame(
                *(event(number, padding) for number in range(first, stop)), source=source
            )
            self._last[partition] = made
            self._produce(partition, made)
        self.events += events
        self._flush()

    def repeat(self) -> None:
        """Produce the last frame of each partition again, as a collector does after a crash."""
        for partition, made in self._last.items():
            self._produce(partition, made)
        self._flush()

    def _produce(self, partition: int, made: Produced) -> None:
        headers: Any = made.headers
        self._producer.produce(
            self._topic, made.value, partition=partition, headers=headers, on_delivery=self._report
        )

    def _report(self, error: Any, _message: object) -> None:
        if error is not None:
            self._failed.append(error.str())

    def _flush(self) -> None:
        assert 0 == self._producer.flush(30)
        assert [] == self._failed


class Oracle:
    """What all senders together have accepted."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, bytes]] = []
        self.tried: list[tuple[str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.judge: Callable[[bytes], Outcome] = lambda _body: Accepted()

    def sender(self, *_: object) -> FakeSender:
        sender = FakeSender(limits=AT_ONCE, concurrency=4)
        oracle = self

        async def send(batch: Any) -> Outcome:
            oracle.tried.append((batch.id, batch.body))
            await oracle.gate.wait()
            outcome = oracle.judge(batch.body)
            if isinstance(outcome, Accepted):
                oracle.batches.append((batch.id, batch.body))
            return outcome

        sender.send = send  # type: ignore[method-assign]
        return sender

    @property
    def counts(self) -> Counter[int]:
        return Counter(
            json.loads(line)["n"] for _, body in self.batches for line in body.splitlines()
        )


def settings(kafka: KafkaBroker, topic: str, start: Any = "earliest") -> Config:
    return Config(
        cluster=Cluster(brokers=(kafka.address,), topic=topic, min_insync=1, options=SESSION),
        destinations=(
            HttpDestination(name="hook", url="http://192.0.2.1/", start=start, concurrency=4),
        ),
    )


@asynccontextmanager
async def delivering(config: Config, data: DataDir, oracle: Oracle) -> AsyncIterator[ClusterEngine]:
    note_starts(config, data)  # as all commands do before they deliver
    engine = ClusterEngine(config, data, timings=TIMINGS, make_sender=oracle.sender)
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await asyncio.wait_for(task, 60)


def figures(*engines: ClusterEngine) -> Counter[str]:
    """Return the figures of the destination, summed over all processes."""
    total: Counter[str] = Counter()
    for engine in engines:
        own = engine.stats()["destinations"].get("hook", {})
        names = ("stored", "delivered", "dead", "filtered", "expired", "pending", "unread")
        total.update({name: own.get(name, 0) for name in names})
    return total


def state_of(engine: ClusterEngine) -> str:
    return str(engine.stats()["destinations"]["hook"]["state"])


def partitions_of(engine: ClusterEngine) -> list[int]:
    return list(engine.stats()["destinations"].get("hook", {}).get("partitions", []))


def test_every_event_of_the_topic_is_delivered_once(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(1000)

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as engine:
            await until(lambda: engine.members)
            assert "starting" == state_of(engine), "it has not joined its group"
            await until(lambda: 1000 == figures(engine)["delivered"])
            assert "healthy" == state_of(engine)
            collectors.repeat()
            collectors.store(500)
            await until(lambda: 1500 == figures(engine)["delivered"])
            total = figures(engine)
        assert Counter(range(1500)) == oracle.counts
        assert (1500, 0) == (total["stored"], total["pending"])
        async with delivering(config, data, oracle) as engine:
            await until(lambda: 1500 == figures(engine)["delivered"])
            collectors.store(10)
            await until(lambda: 1510 == figures(engine)["delivered"])
        assert Counter(range(1510)) == oracle.counts

    run(main())


def test_a_new_destination_starts_at_the_newest_event_of_every_partition(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic, start="latest")
    collectors.store(100)

    async def main() -> None:
        oracle = Oracle()
        engines = [delivering(config, data, oracle) for _ in range(2)]
        async with engines[0] as one, engines[1] as two:
            await until(lambda: PARTITIONS == sum(len(partitions_of(each)) for each in (one, two)))
            collectors.store(100)
            await until(lambda: 100 == figures(one, two)["delivered"])
        assert Counter(range(100, 200)) == oracle.counts

    run(main())


def test_processes_that_join_and_leave_share_the_work_and_lose_nothing(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as one:
            collectors.store(200)
            await until(lambda: 200 == figures(one)["delivered"])
            async with delivering(config, data, oracle) as two:
                await until(lambda: 2 == len(partitions_of(one)) == len(partitions_of(two)))
                collectors.store(200)
                await until(lambda: 400 == figures(one, two)["delivered"])
                async with delivering(config, data, oracle) as three:
                    await until(lambda: partitions_of(three))
                    collectors.store(200)
                    await until(lambda: 600 == figures(one, two, three)["delivered"])
                collectors.store(200)
                await until(lambda: 800 == figures(one, two)["delivered"])
            await until(lambda: PARTITIONS == len(partitions_of(one)))
            total = figures(one)
        assert Counter(range(800)) == oracle.counts
        assert (800, 800, 0) == (total["stored"], total["delivered"], total["pending"])

    run(main(), 120.0)


def test_batches_under_way_during_a_rebalance_keep_their_id_and_bytes(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)

    async def main() -> None:
        hanging, oracle = Oracle(), Oracle()
        hanging.gate.clear()
        async with delivering(config, data, hanging) as one:
            collectors.store(20)  # a batch in each partition
            await until(lambda: PARTITIONS == len(hanging.tried))
            async with delivering(config, data, oracle) as two:
                await until(lambda: 2 == len(partitions_of(two)))
                await until(lambda: 10 == figures(two)["delivered"])
                sent = {name: body for name, body in hanging.tried if name in dict(oracle.batches)}
                assert len(sent) == 2
                assert sent == {name: dict(oracle.batches)[name] for name in sent}
                hanging.gate.set()
                await until(lambda: 20 == figures(one, two)["delivered"])
        assert set(range(20)) == set((oracle.counts + hanging.counts).keys())
        assert Counter(range(20)) == oracle.counts + hanging.counts

    run(main(), 120.0)


def test_dead_letters_are_listed_replayed_and_dropped_on_any_machine(
    kafka: KafkaBroker, topic: str, data: DataDir, tmp_path: Path
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(100, per_frame=10)
    path = tmp_path / "pixelfast.toml"
    path.write_text(
        f'[cluster]\nbrokers = ["{kafka.address}"]\ntopic = "{topic}"\nmin_insync = 1\n'
    )

    def dead(*arguments: str) -> list[str]:
        done = CliRunner().invoke(cli, ["dead", *arguments, "-c", str(path)])
        assert 0 == done.exit_code, done.output
        return done.stdout.splitlines()

    def judge(body: bytes) -> Outcome:
        numbers = [json.loads(line)["n"] for line in body.splitlines()]
        if any(n % 10 == 3 for n in numbers):
            return Rejected("no threes", 400, b"bad request")
        return Accepted()

    async def main() -> None:
        oracle = Oracle()
        oracle.judge = judge
        async with delivering(config, data, oracle) as engine:
            await until(lambda: 0 == figures(engine)["pending"] and figures(engine)["dead"] == 10)
            total = figures(engine)
            assert (100, 90) == (total["stored"], total["delivered"])
            assert Counter(n for n in range(100) if n % 10 != 3) == oracle.counts
            header, *lines = await asyncio.to_thread(dead, "ls")
            assert header.startswith("destination")
            assert 10 == len(lines)
            assert all("no threes" in line and "web" in line for line in lines)
            dropped, *ids = [line.split()[1] for line in lines]
            (shown,) = await asyncio.to_thread(dead, "show", "hook", dropped)
            assert "bad request" == json.loads(shown)["response"]
            gone = json.loads(shown)["event"]["n"]
            assert ["1 dead letter deleted"] == await asyncio.to_thread(
                dead, "drop", "hook", dropped
            )
            oracle.judge = lambda _body: Accepted()
            assert ["9 dead letters will be replayed"] == await asyncio.to_thread(
                dead, "replay", "hook", *ids
            )
            await until(lambda: 99 == figures(engine)["delivered"])
            assert Counter(n for n in range(100) if n != gone) == oracle.counts
            assert (100, 1) == (figures(engine)["stored"], figures(engine)["dead"])
            assert [] == await asyncio.to_thread(dead, "ls")

    run(main())


def test_delivery_waits_for_a_topic_that_keeps_dead_letters(
    kafka: KafkaBroker, topic: str, topics: Topics, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(10)
    topics.create(f"{topic}-dead", 1, cleanup_policy="delete")

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as engine:
            await until(lambda: engine.stats()["destinations"]["hook"]["last_error"])
            error = engine.stats()["destinations"]["hook"]["last_error"]
            assert f"topic {topic}-dead: cleanup.policy is delete; expected compact" == error
            assert not engine.stats()["is_ready"]
            await asyncio.to_thread(topics.delete, f"{topic}-dead")
            await until(lambda: 10 == figures(engine)["delivered"])

    run(main())


def test_a_destination_that_is_down_gets_its_events_later(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(100)

    async def main() -> None:
        oracle = Oracle()
        oracle.judge = lambda _body: Retry("down")
        async with delivering(config, data, oracle) as engine:
            await until(lambda: figures(engine)["pending"] == 100 and oracle.tried)
            oracle.judge = lambda _body: Accepted()
            await until(lambda: 100 == figures(engine)["delivered"])
        assert set(range(100)) == set(oracle.counts)
        assert oracle.counts.total() <= 100 + MAX_PROBED, "copies that were sent ahead as a probe"

    run(main())


def test_a_topic_that_is_created_again_is_delivered_from_its_first_event(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic, start="newest")

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as engine:
            await until(lambda: PARTITIONS == len(partitions_of(engine)))
            await asyncio.to_thread(collectors.store, 100)
            await until(lambda: 100 == figures(engine)["delivered"])
            await asyncio.to_thread(topics.delete, topic)
            await until(lambda: not topics.exists(topic))
            await asyncio.to_thread(topics.create, topic, PARTITIONS)
            await asyncio.to_thread(collectors.store, 200)  # more than the offsets before
            await until(lambda: set(range(300)) == set(oracle.counts))
            await until(lambda: 0 == figures(engine)["pending"])
            total = figures(engine)
            assert total["stored"] == total["delivered"] + total["expired"]

    run(main())


def test_events_that_wait_in_the_topic_are_counted(
    kafka: KafkaBroker, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(1500, padding=25_000)  # more than a process keeps

    async def main() -> None:
        oracle = Oracle()
        oracle.judge = lambda _body: Retry("down")
        async with delivering(config, data, oracle) as engine:
            await until(lambda: figures(engine)["unread"] and oracle.tried)
            await until(lambda: 1500 == figures(engine)["stored"] + figures(engine)["unread"])
            total = figures(engine)
            assert total["stored"] == total["pending"] < 1500
            oracle.judge = lambda _body: Accepted()
            await until(lambda: 1500 == figures(engine)["delivered"])
            total = figures(engine)
            assert (1500, 0, 0) == (total["stored"], total["pending"], total["unread"])

    run(main())


def test_partitions_that_are_added_later_are_delivered_from_their_first_event(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic, start="newest")

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as engine:
            await until(lambda: PARTITIONS == len(partitions_of(engine)))
            await asyncio.to_thread(topics.extend, topic, PARTITIONS + 2)
            collectors.add_partitions(2)
            await asyncio.to_thread(collectors.store, 60)
            await until(lambda: 60 == figures(engine)["delivered"])
        assert Counter(range(60)) == oracle.counts

    run(main())


def test_events_that_the_topic_deleted_before_they_were_delivered_count_as_expired(
    kafka: KafkaBroker, topics: Topics, topic: str, data: DataDir
) -> None:
    collectors, config = Collectors(kafka, topic), settings(kafka, topic)
    collectors.store(40)

    async def main() -> None:
        oracle = Oracle()
        async with delivering(config, data, oracle) as engine:
            await until(lambda: 40 == figures(engine)["delivered"])
        collectors.store(40)  # two frames in each partition
        for partition in range(PARTITIONS):
            topics.delete_before(topic, partition, 3)
        async with delivering(config, data, oracle) as engine:
            await until(lambda: 60 == figures(engine)["delivered"])
            total = figures(engine)
        assert (80, 20, 0) == (total["stored"], total["expired"], total["pending"])
        assert 60 == len(oracle.counts)

    run(main())
