"""`pixelfast serve` with `[cluster]`, operated as usual, with a real broker."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.servers import Server, serving
from tests.waiting import wait_until

SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-web"]
[cluster]
brokers = ["{address}"]
topic = "{topic}"
min_insync = 1
[[destinations]]
name = "first"
type = "file"
"""
SECOND = """
[[destinations]]
name = "second"
type = "file"
"""


@pytest.fixture
def topic(request: pytest.FixtureRequest, kafka: KafkaBroker) -> Iterator[str]:
    topics = Topics(kafka.address)
    yield topics.create(f"serve-{abs(hash(request.node.name)):x}", partitions=2)
    topics.close()


def wait_for(server: Server, destination: str, *events: str) -> None:
    """Wait until a destination has received exactly these events."""

    def found() -> Counter[str]:
        return Counter(each["event"] for each in server.events(destination))

    wait_until(lambda: Counter(events) == found(), f"{events} in {destination}")


def test_every_destination_receives_each_event_once_across_a_reload_and_an_upgrade(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic)
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        assert 200 == server.track("a")  # before the consumer group exists
        wait_for(server, "first", "a")
        (tmp_path / "data.toml").write_text(settings + SECOND)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reload_completed" in server.log, "the reload")
        assert 200 == server.track("b")
        wait_for(server, "second", "b")
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade_completed" in server.log, "the upgrade")
        assert 200 == server.track("c")
        wait_for(server, "second", "b", "c")
        wait_for(server, "first", "a", "b", "c")
        assert {"first", "second"} == set(server.check_sums())
    assert "Traceback" not in server.log
