"""The replication of a collector as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixelfast.cluster.replication import Replication
from pixelfast.config import Cluster, Spool
from tests.cluster.topic import FakeTopic
from tests.deliver.running import run
from tests.spools import open_data
from tests.waiting import until

BROKER = "kafka-1:9092"


def test_the_figures_of_the_brokers_are_those_of_all_producers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = FakeTopic()
    readers: list[Callable[[str], None]] = []

    def connect(
        _settings: Cluster,
        max_bytes: int,
        on_fatal: Any,
        on_error: Any,
        read: Callable[[str], None],
    ) -> Any:
        readers.append(read)
        return topic.connect(max_bytes, on_fatal, on_error)

    monkeypatch.setattr("pixelfast.cluster.replication.FrameProducer", connect)

    def report(retries: int) -> str:
        broker = {"nodeid": 1, "nodename": BROKER, "txretries": retries, "rtt": {"avg": 1500}}
        return json.dumps({"name": "pixelfast#1", "brokers": {f"{BROKER}/1": broker}})

    async def main() -> None:
        cluster, data = Cluster(brokers=("192.0.2.1:9092",)), open_data(tmp_path / "data")
        replication = Replication(data, 0, cluster, Spool(), 2**20, lambda *_: None)
        await until(lambda: len(readers) == 1)
        readers[0](report(3))
        own = {"queued_messages": 0, "round_trip_s": 0.0015}
        assert {BROKER: own} == replication.stats()["cluster_brokers"]
        topic.transports[0].events.append(lambda: topic.transports[0].on_fatal("broken"))
        await until(lambda: len(readers) == 2)
        assert {} == replication.stats()["cluster_brokers"]
        readers[1](report(1))
        assert {BROKER: 4} == replication.totals()["cluster_retries"]
        await replication.close()

    run(main())
