"""Delivery from a cluster whose brokers do not respond."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from pixelfast.config import Cluster, Config, FileDestination
from pixelfast.deliver.cluster.engine import ClusterEngine
from pixelfast.deliver.cluster.topic_id import TopicId
from pixelfast.errors import DestinationError
from tests.deliver.running import run
from tests.spools import open_data
from tests.waiting import until, wait_until

ONE, TWO = FileDestination(name="one"), FileDestination(name="two")


def test_an_engine_without_brokers_can_be_reloaded_and_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, is_over = threading.Event(), threading.Event()

    def look_up(_topic: TopicId) -> str:
        is_asked.set()
        is_over.wait(30)
        raise DestinationError("no broker responds")

    monkeypatch.setattr(TopicId, "look_up", look_up)
    threads = threading.active_count()
    cluster = Cluster(brokers=("192.0.2.1:9092",))

    async def main() -> None:
        config = Config(cluster=cluster, destinations=(ONE,))
        engine = ClusterEngine(config, open_data(tmp_path / "data"))
        running = asyncio.create_task(engine.run())
        await until(is_asked.is_set)
        assert not engine.stats()["is_ready"]
        await engine.reload(Config(cluster=cluster, destinations=(ONE, TWO)), ["two"])
        assert ["two"] == engine.names
        assert "starting" == engine.stats()["destinations"]["two"]["state"]
        engine.stop()
        await asyncio.wait_for(running, 10.0)
        assert not is_over.is_set()

    try:
        run(main())
    finally:
        is_over.set()
        wait_until(lambda: threading.active_count() == threads, "the end of the request")


def test_the_reason_why_no_broker_responds_is_shown_until_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(_topic: TopicId) -> str:
        raise DestinationError("no broker responds")

    monkeypatch.setattr(TopicId, "look_up", look_up)

    async def main() -> None:
        config = Config(cluster=Cluster(brokers=("192.0.2.1:9092",)), destinations=(ONE,))
        engine = ClusterEngine(config, open_data(tmp_path / "data"))
        running = asyncio.create_task(engine.run())
        await until(lambda: engine.stats()["destinations"]["one"]["last_error"])
        assert "no broker responds" == engine.stats()["destinations"]["one"]["last_error"]
        engine.stop()
        await asyncio.wait_for(running, 10.0)

    run(main())


def test_a_file_for_tls_that_cannot_be_used_is_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = Cluster(brokers=("192.0.2.1:9092",), security="ssl", tls_ca="/nonexistent/ca")
        engine = ClusterEngine(
            Config(cluster=cluster, destinations=(ONE,)), open_data(tmp_path / "data")
        )
        running = asyncio.create_task(engine.run())
        await until(lambda: engine.stats()["destinations"]["one"]["last_error"])
        assert (
            "cluster.tls_ca /nonexistent/ca: No such file or directory"
            == engine.stats()["destinations"]["one"]["last_error"]
        )
        engine.stop()
        await asyncio.wait_for(running, 10.0)

    run(main())
