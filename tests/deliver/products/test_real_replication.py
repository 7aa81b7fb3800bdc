"""Collectors that replicate to a real Kafka broker, with faults of the broker and of the collector.

An oracle outside of the processes knows which pixels got a 200: their events must be in the topic.
"""

from __future__ import annotations

import asyncio
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cluster.topic import Stored, read_topic, unique_events
from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.running import run
from tests.load import Load
from tests.program import PIXELFAST
from tests.servers import serving
from tests.waiting import until, wait_until

SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-web"]
[spool]
segment_bytes = "256KiB"
[cluster]
brokers = ["{address}"]
topic = "{topic}"
min_insync = 1
when_unavailable = "{when_unavailable}"
max_replication_wait_s = {wait_s}
"""


class Collector:
    """A `pixelfast collect` process."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.data_dir = folder / "data"
        self.log_path = folder / "collector.log"
        path = folder / "pixelfast.toml"
        path.write_text(settings)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*PIXELFAST, "collect", "-c", str(path), "--listen", "127.0.0.1:0"),
                    *("--data-dir", str(self.data_dir)),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 60)[0], self.log
        match = re.search(rb"127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert match is not None, self.log
        self.port = int(match[1])

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self._end()

    def stop(self) -> None:
        """Stop it, and check that it ends well."""
        self.process.terminate()
        self._end()
        assert 0 == self.process.returncode, self.log

    def _end(self) -> None:
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def collecting(folder: Path, settings: str) -> Iterator[Collector]:
    collector = Collector(folder, settings)
    try:
        yield collector
    finally:
        if collector.process.poll() is None:
            collector.kill()
    assert "Traceback" not in collector.log


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    return topics.create(f"log-{abs(hash(request.node.name)):x}", partitions=3)


def settings_of(
    kafka: KafkaBroker, topic: str, when_unavailable: str = "spool", wait_s: float = 0.3
) -> str:
    return SETTINGS.format(
        address=kafka.address, topic=topic, when_unavailable=when_unavailable, wait_s=wait_s
    )


def names_in(stored: list[Stored]) -> list[str]:
    """Return the names of the events as delivery reads them."""
    return [msgspec.json.decode(each)["event"] for each in unique_events(stored)]


def check(kafka: KafkaBroker, topic: str, load: Load) -> list[Stored]:
    """Check that every acknowledged event is in the topic once, and none that was not sent."""
    stored = read_topic((kafka.address,), topic)
    names = names_in(stored)
    assert set() == set(load.acked) - set(names)
    assert set(names) <= load.sent
    assert len(names) == len(set(names))
    return stored


def all_stored(kafka: KafkaBroker, topic: str, load: Load) -> bool:
    return set(load.acked) <= set(names_in(read_topic((kafka.address,), topic)))


def test_no_acknowledged_event_is_lost_when_a_collector_and_its_data_are_lost(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    with collecting(tmp_path, settings_of(kafka, topic, "reject", 10)) as collector:
        load = Load(collector.port, "wk-web", connections=8)

        async def main() -> None:
            load.start()
            await load.until_acked(2000)
            collector.kill()
            await load.stop()

        run(main())
        shutil.rmtree(collector.data_dir)
        assert {} == load.rejected
    stored = check(kafka, topic, load)
    assert 1 == len({each.partition for each in stored})


def test_no_event_is_lost_or_rejected_while_the_broker_is_away(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka, topic)
    with collecting(tmp_path, settings) as collector:
        load = Load(collector.port, "wk-web", connections=4, pause_s=0.002)

        async def main() -> None:
            load.start()
            await load.until_acked(200)
            kafka.kill()
            await load.until_acked(400)
            await load.stop()

        run(main())
        assert {} == load.rejected
        assert "brokers_unavailable" in collector.log
        collector.kill()
    with collecting(tmp_path, settings) as collector:
        load.port = collector.port

        async def resume() -> None:
            load.start()
            kafka.launch()  # which takes seconds
            await load.until_acked(200)
            await until(kafka.responds)
            await load.until_acked(200)
            await load.stop()

        run(resume())
        assert {} == load.rejected
        wait_until(lambda: all_stored(kafka, topic, load), "all events in the topic", 60)
        collector.stop()
    check(kafka, topic, load)


def test_no_event_is_lost_or_rejected_while_the_broker_is_frozen(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    with collecting(tmp_path, settings_of(kafka, topic)) as collector:
        load = Load(collector.port, "wk-web", connections=4, pause_s=0.002)

        async def main() -> None:
            load.start()
            await load.until_acked(200)
            kafka.freeze()
            await load.until_acked(200)
            kafka.thaw()
            await load.until_acked(200)
            await load.stop()

        run(main())
        assert {} == load.rejected
        wait_until(lambda: all_stored(kafka, topic, load), "all events in the topic", 60)
        collector.stop()
    check(kafka, topic, load)


def test_events_are_rejected_while_the_broker_is_away_if_the_settings_say_so(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    with collecting(tmp_path, settings_of(kafka, topic, "reject")) as collector:
        load = Load(collector.port, "wk-web", connections=4, pause_s=0.01)

        async def main() -> None:
            load.start()
            await load.until_acked(200)
            kafka.freeze()
            await until(lambda: load.rejected.get(503, 0) > 100)
            before = len(load.acked)
            await until(lambda: load.rejected[503] > 200)
            assert before == len(load.acked)
            kafka.thaw()
            await load.until_acked(200)
            await load.stop()

        run(main())
        collector.stop()
    check(kafka, topic, load)


def test_a_topic_that_does_not_keep_events_acknowledges_none(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    topics = Topics(kafka.address)
    name = topics.create("log-compacted", partitions=1, cleanup_policy="compact")
    topics.close()
    with collecting(tmp_path, settings_of(kafka, name, "reject")) as collector:
        load = Load(collector.port, "wk-web", connections=1)

        async def main() -> None:
            load.start()
            await until(lambda: load.rejected.get(503, 0) > 5)
            await load.stop()

        run(main())
        assert "cleanup.policy is compact; expected delete" in collector.log
        assert [] == load.acked
        collector.stop()


def test_a_topic_that_does_not_exist_yet_is_found_later(kafka: KafkaBroker, tmp_path: Path) -> None:
    name = "log-created-later"
    with collecting(tmp_path, settings_of(kafka, name)) as collector:
        load = Load(collector.port, "wk-web", connections=2, pause_s=0.002)

        async def main() -> None:
            load.start()
            await load.until_acked(200)
            topics = Topics(kafka.address)
            topics.create(name, partitions=3)
            topics.close()
            await load.stop()
            await asyncio.sleep(0)

        run(main())
        assert "replication_interrupted" in collector.log
        wait_until(lambda: "replication_resumed" in collector.log, "the topic was found", 60)
        wait_until(lambda: all_stored(kafka, name, load), "all events in the topic", 60)
        collector.stop()
    check(kafka, name, load)


def test_metrics_and_health_say_whether_everything_is_replicated(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = "[server]\nworkers = 1\n" + settings_of(kafka, topic)
    with serving(tmp_path / "data", settings=settings) as server:
        assert [200] * 20 == [server.track(f"e{number}") for number in range(20)]

        def collector() -> dict[str, Any]:
            found = msgspec.json.decode(server.admin("/health/ready"))["processes"]
            state: dict[str, Any] = found["collector-0"].get("replication", {})
            return state

        expected = {
            "is_replicated": True,
            "are_brokers_available": True,
            "backlog_s": 0.0,
            "error": "",
        }
        wait_until(lambda: collector() == expected, "everything is replicated", 30)
        metrics = server.metrics()
        assert 20 == metrics["pixelfast_acknowledged_commits_total"]
        assert 20 == metrics["pixelfast_replicated_frames_total"]
        assert (
            metrics["pixelfast_stored_bytes_total"] == metrics["pixelfast_replicated_bytes_total"]
        )
        names = {
            "brokers_available": 1,
            "replication_backlog_seconds": 0,
            "replication_in_flight_bytes": 0,
        }
        for name, value in names.items():
            assert value == metrics[f"pixelfast_{name}"]
        kafka.freeze()
        assert 200 == server.track("last")
        wait_until(lambda: not collector()["is_replicated"], "an event is not replicated", 30)
        assert not collector()["are_brokers_available"]
        kafka.thaw()  # a stop waits for the response of a frozen broker
