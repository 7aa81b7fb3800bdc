"""A cluster: brokers, collectors and delivery processes, and the observer of all of them."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
    AdminClient,
    NewPartitions,
    NewTopic,
)

from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.reliability.cluster.machines import Collector, Machine
from tests.reliability.cluster.oracle import MAIN, OTHER, ClusterOracle, is_bad
from tests.reliability.oracle import WRITE_KEY, Verdict
from tests.waiting import wait_until

__all__ = ["PARTITIONS", "Site"]

PARTITIONS = 6
_Kind = TypeVar("_Kind", bound=Machine)
_RESPONSE_S = 60.0
_DELETED_S = 2.0  # in which the other brokers learn that the topic was deleted
_PARTS = ("delivered", "dead", "filtered", "expired", "pending", "missing")
_SETTINGS = """
[[sources]]
name = "web"
write_keys = ["{key}"]
[spool]
segment_bytes = "256KiB"
min_free = 0
[cluster]
brokers = {brokers}
topic = "{topic}"
min_insync = {min_insync}
when_unavailable = "{when_unavailable}"
node = "{node}"
"""
_DESTINATION = """
[[destinations]]
name = "{name}"
type = "http"
url = "{url}"
start = "{start}"
max_events = 200
max_age_s = 0.05
timeout_s = 5
retry_first_s = 0.05
retry_most_s = 0.4
"""


class Site:
    """Machines that share a new topic, on brokers that run.

    The delivery processes deliver to the first destination; one machine more delivers to the other
    one.

    Attributes:
        topic: the topic of the events.
        oracle: the observer.
        collectors: the machines that receive pixels.
        deliverers: the machines that deliver to the first destination.
    """

    def __init__(
        self,
        folder: Path,
        brokers: Sequence[KafkaBroker],
        *,
        collectors: int = 2,
        deliverers: int = 2,
        when_unavailable: str = "spool",
        start: str = "earliest",
        is_led_by_first: bool = False,
        root: Path | None = None,
        **load: Any,
    ) -> None:
        """Prepare the machines; `root` is the folder of another build of pixelfast.

        If the topic `is_led_by_first`, the first broker leads all of its partitions.
        """
        self.topic = f"site-{uuid.uuid4().hex[:8]}"
        self.oracle = ClusterOracle(**{"connections": 4, "pause_s": 0.03, **load})
        self.collectors: list[Collector] = []
        self.deliverers: list[Machine] = []
        self._machines: list[Machine] = []
        self._folder = folder
        self._brokers = brokers
        self._root = root
        self._when_unavailable = when_unavailable
        self._start = start
        self._is_led_by_first = is_led_by_first
        self._counts = collectors, deliverers
        self._addresses = ",".join(each.address for each in brokers)
        self._admin = AdminClient({"bootstrap.servers": self._addresses, "log_level": 0})

    def __enter__(self) -> Self:
        self.oracle.__enter__()
        try:
            self.create_topic()
            collectors, deliverers = self._counts
            for _ in range(collectors):
                self.add_collector()
            for _ in range(deliverers):
                self.add_deliverer()
            self._add(Machine, "other", OTHER)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._machines:
            if each.is_running:
                each.kill()
        self.oracle.__exit__()

    # --- machines ----------------------------------------------------------------------------

    def add_collector(self, data_dir: Path | None = None) -> Collector:
        """Start one more machine that receives pixels."""
        made = self._add(Collector, "collector", data_dir=data_dir)
        self.collectors.append(made)
        self.aim()
        return made

    def add_deliverer(self) -> Machine:
        """Start one more machine that delivers to the first destination."""
        made = self._add(Machine, "deliverer", MAIN)
        self.deliverers.append(made)
        return made

    def _add(
        self, kind: type[_Kind], name: str, path: str = "", data_dir: Path | None = None
    ) -> _Kind:
        node = f"{name}-{len(self._machines)}"
        settings = _SETTINGS.format(
            node=node,
            key=WRITE_KEY,
            brokers=json.dumps([each.address for each in self._brokers]),
            topic=self.topic,
            min_insync=min(2, len(self._brokers)),
            when_unavailable=self._when_unavailable,
        )
        if path:
            url = self.oracle.base_url + path
            settings += _DESTINATION.format(name=path.strip("/"), url=url, start=self._start)
        made = kind(self._folder / node, settings, self._root, data_dir)
        self._machines.append(made)
        made.start()
        return made

    def aim(self) -> None:
        """Send the pixels to all collectors that run."""
        self.oracle.aim_at(*(each.port for each in self.collectors if each.is_running))

    # --- the topic ---------------------------------------------------------------------------

    def create_topic(self) -> None:
        """Create the topic; retry while a topic of the same name is being deleted."""
        replicas = len(self._brokers)
        config = {"retention.ms": "-1", "min.insync.replicas": str(min(2, replicas))}
        if self._is_led_by_first:
            nodes = list(range(1, replicas + 1))  # the first one is the leader
            assigned: Any = {"replica_assignment": [nodes] * PARTITIONS, "config": config}
            new = NewTopic(self.topic, PARTITIONS, **assigned)
        else:
            new = NewTopic(self.topic, PARTITIONS, replicas, config=config)

        def is_created() -> bool:
            try:
                self._admin.create_topics([new])[self.topic].result(_RESPONSE_S)
            except KafkaException:
                return False
            return True

        wait_until(is_created, "the topic is created", _RESPONSE_S)

    def delete_topic(self) -> None:
        """Delete the topic, and wait until no broker can store anything in it."""
        self._admin.delete_topics([self.topic])[self.topic].result(_RESPONSE_S)

        def is_gone() -> bool:
            found = self._admin.list_topics(self.topic, _RESPONSE_S).topics[self.topic]
            return found.error is not None

        wait_until(is_gone, "the topic is deleted", _RESPONSE_S)
        time.sleep(_DELETED_S)

    def add_partitions(self, partitions: int) -> None:
        """Enlarge the topic to this number of partitions."""
        new = NewPartitions(self.topic, partitions)
        self._admin.create_partitions([new])[self.topic].result(_RESPONSE_S)

    def partitions(self) -> dict[int, tuple[int, list[int]]]:
        """Return the leader and the in-sync replicas of each partition, as the brokers know."""
        found = self._admin.list_topics(self.topic, _RESPONSE_S).topics[self.topic].partitions
        return {number: (each.leader, each.isrs) for number, each in found.items()}

    def until_in_sync(self) -> None:
        """Wait until every replica of every partition is in sync."""
        replicas = len(self._brokers)

        def is_in_sync() -> bool:
            try:
                return all(len(isrs) == replicas for _, isrs in self.partitions().values())
            except (KafkaException, KeyError):
                return False

        wait_until(is_in_sync, "all replicas are in sync", 300.0)

    def dead_letters(self) -> set[str]:
        """Return the ids of the messages whose events are dead letters of the first destination."""
        topics = Topics(self._addresses)
        letters: dict[bytes, str] = {}
        for each in topics.read(f"{self.topic}-dead"):
            assert each.key is not None
            if each.value:
                letters[each.key] = json.loads(each.value)["event"]["messageId"]
        topics.close()
        return set(letters.values())

    # --- waiting and judging -----------------------------------------------------------------

    def until_replicated(self, timeout_s: float) -> float:
        """Wait until everything that is stored now is replicated; return the time in seconds."""
        began_s = time.monotonic()
        ends = [(each, each.end()) for each in self.collectors if each.is_running]

        def is_replicated() -> bool:
            return all(each.replicated() >= end for each, end in ends)

        wait_until(is_replicated, "all collectors have replicated their logs", timeout_s)
        return time.monotonic() - began_s

    def check_sums(self) -> None:
        """Check that every event has one outcome for each destination, over all machines.

        Needs a verdict without missing events. The figures of partitions that change their owner
        are incomplete for a moment.
        """
        delivered = {
            MAIN.strip("/"): sum(self.oracle.ledger.counts),
            OTHER.strip("/"): sum(self.oracle.other.counts),
        }
        total: dict[str, Counter[str]] = {}

        def are_balanced() -> bool:
            total.clear()
            for machine in self._machines:
                if machine.is_running and not isinstance(machine, Collector):
                    for name, figures in machine.figures().items():
                        total.setdefault(name, Counter()).update(figures)
            return all(
                own["delivered_events"] == delivered[name]
                and own["destination_stored_events"]
                == sum(own[f"{part}_events"] for part in _PARTS)
                for name, own in total.items()
            )

        try:
            wait_until(are_balanced, "all events have one outcome", _RESPONSE_S)
        except AssertionError:
            raise AssertionError(f"{total} for {delivered} events that were delivered") from None

    def judge(self, patience_s: float = 90.0) -> tuple[Verdict, int]:
        """Stop the load; return the verdict on both destinations, and the number of dead letters.

        Events are lost if they are neither delivered nor dead letters once nothing has arrived for
        `patience_s`.
        """
        oracle = self.oracle
        oracle.pause()
        ledgers = oracle.ledger, oracle.other
        taken, latest_s = 0, time.monotonic()
        while time.monotonic() - latest_s < patience_s:
            verdict, dead = Verdict(), self.dead_letters()
            verdict += oracle.judge(oracle.ledger, dead)
            verdict += oracle.judge(oracle.other)
            if not verdict.missing:
                break
            if (now := sum(each.taken for each in ledgers) + len(dead)) != taken:
                taken, latest_s = now, time.monotonic()
            time.sleep(0.2)
        good = {one for one in dead if not is_bad(int(one.rpartition("-")[2]))}
        assert not good, f"good events are dead letters: {sorted(good)[:5]}"
        return verdict, len(dead)
