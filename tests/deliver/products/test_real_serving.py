"""`pixelfast serve` with `[cluster]`, operated as usual, with a real broker."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.topic import events_in, read_topic
from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.program import run_pixelfast
from tests.servers import Server, serving
from tests.spools import Slot, open_data
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
RELOADED = """
rotate_s = 7200
[[destinations]]
name = "second"
type = "file"
"""


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    return topics.create(f"serve-{abs(hash(request.node.name)):x}", partitions=2)


def wait_for(server: Server, destination: str, *events: str) -> None:
    """Wait until a destination has received exactly these events."""

    def found() -> Counter[str]:
        return Counter(each["event"] for each in server.events(destination))

    wait_until(lambda: Counter(events) == found(), f"{events} in {destination}")


def accounted(server: Server) -> tuple[float, ...]:
    """Return how many events are stored, delivered and pending, of all destinations."""
    found = server.metrics()
    names = "destination_stored_events_total", "delivered_events_total", "pending_events"
    return tuple(found.get(f"pixelfast_{name}", -1.0) for name in names)


def test_every_destination_receives_each_event_once_across_a_reload_and_an_upgrade(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic)
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        assert 200 == server.track("a")  # before the consumer group exists
        wait_for(server, "first", "a")
        (tmp_path / "data.toml").write_text(settings + RELOADED)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reload_completed" in server.log, "the reload")
        (line,) = [each for each in server.log.splitlines() if "destinations_reloaded" in each]
        assert '"added": ["second"], "changed": ["first"], "removed": []' in line
        assert 200 == server.track("b")
        wait_for(server, "second", "b")
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade_completed" in server.log, "the upgrade")
        assert 200 == server.track("c")
        wait_for(server, "second", "b", "c")
        wait_for(server, "first", "a", "b", "c")
        wait_until(lambda: (5, 5, 0) == accounted(server), "the metrics of all partitions")
    assert "Traceback" not in server.log


def test_drain_replicates_what_a_stopped_server_has_left(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    slot = Slot(open_data(tmp_path / "data"))
    slot.write(b'{"n":1}', b'{"n":2}', received_ms=time.time_ns() // 10**6)
    slot.close()
    (tmp_path / "data.toml").write_text(SETTINGS.format(address=kafka.address, topic=topic))
    ours = "drain", "-c", f"{tmp_path}/data.toml", "--data-dir", f"{tmp_path}/data"
    done = run_pixelfast(*ours, "--timeout", "0")
    title, _, row = done.stdout.splitlines()
    assert (1, "not all events are replicated:") == (done.returncode, title)
    assert ["0", "2"] == row.split()[:2]
    done = run_pixelfast(*ours)
    assert (0, "all events are replicated\n", "") == (done.returncode, done.stdout, done.stderr)
    assert [b'{"n":1}', b'{"n":2}'] == events_in(read_topic((kafka.address,), topic))
