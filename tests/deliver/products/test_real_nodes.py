"""The machines of a cluster in the consumer group `pixelfast.nodes`, with a real broker."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from pixelfast.spool import DataDir
from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.program import PIXELFAST
from tests.reliability.cluster.machines import Collector, Machine
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
node = "{node}"
options = {{ "session.timeout.ms" = "6000" }}
"""
DESTINATION = """
[[destinations]]
name = "first"
type = "file"
"""


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    return topics.create(f"nodes-{abs(hash(request.node.name)):x}", partitions=1)


@contextmanager
def ended(*machines: Machine) -> Iterator[None]:
    """Kill those machines that still run at the end."""
    try:
        yield
    finally:
        for each in machines:
            if each.is_running:
                each.kill()


def events(log: str, event: str) -> list[dict[str, Any]]:
    """Return the lines of a log event."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [each for each in lines if each["event"] == event]


def joined(machine: Machine) -> dict[str, Any]:
    """Wait until a machine has joined since its last start; return the line of its log."""
    starts = len(events(machine.log, "admin_started"))
    wait_until(lambda: len(events(machine.log, "node_joined")) >= starts, "it joined")
    return events(machine.log, "node_joined")[-1]


def live_clients(kafka: KafkaBroker, topic: str) -> set[str]:
    """Return the client ids of the members of a cluster, without their node ids."""
    admin = AdminClient({"bootstrap.servers": kafka.address})
    name = "pixelfast.nodes"
    members = admin.describe_consumer_groups([name])[name].result(30).members
    ids = [each.client_id.rsplit("/", 1)[0] for each in members]
    return {each for each in ids if each.startswith(f"pixelfast/{topic}/")}


def test_machines_know_each_other_by_name(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    names = {"address": kafka.address, "topic": topic}
    first = Collector(tmp_path / "c", SETTINGS.format(**names, node="in-1"))
    second = Machine(tmp_path / "d", SETTINGS.format(**names, node="out-1") + DESTINATION)
    with ended(first, second):
        first.start()
        assert [] == joined(first)["others"]
        second.start()
        assert ["in-1"] == joined(second)["others"]
        expected = {f"pixelfast/{topic}/in-1", f"pixelfast/{topic}/out-1"}
        assert expected == live_clients(kafka, topic)
        first.kill()  # and it is back at once, as the same member
        first.start()
        assert ["out-1"] == joined(first)["others"]
        second.stop()
        wait_until(lambda: live_clients(kafka, topic) == {f"pixelfast/{topic}/in-1"}, "it left")
        first.stop()
    for each in (first, second):
        assert not events(each.log, "node_name_in_use")
        assert not events(each.log, "data_dir_copied")


def test_a_name_that_another_live_machine_has_stops_the_start(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic, node="twin")
    with serving(tmp_path / "first", "--workers", "1", settings=settings) as server:
        wait_until(lambda: events(server.log, "node_joined"), "it joined")
        node = DataDir.find(tmp_path / "first").node.hex()
        file = tmp_path / "second.toml"
        file.write_text(f'data_dir = "{tmp_path}/second"\n{settings}')
        begun_s = time.monotonic()
        command = [*PIXELFAST, "collect", "-c", str(file), "--listen", "127.0.0.1:0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert time.monotonic() - begun_s > 6, "a killed machine counts as live for 6 s"
        assert (2, "") == (done.returncode, done.stdout)
        what = f"is the name of another live machine (127.0.0.1, node id {node})"
        assert f'cluster.node = "twin": {what}' in done.stderr
        assert "node_name_waits" in done.stderr
        assert 200 == server.track("unaffected")


def test_a_machine_that_was_deleted_is_replaced_by_one_of_the_same_name(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic, node="phoenix")
    old = Collector(tmp_path / "old", settings)
    new = Collector(tmp_path / "new", settings)
    with ended(old, new):
        old.start()
        joined(old)
        old.lose()
        new.start()
        joined(new)
        assert not events(new.log, "node_name_in_use")
        new.stop()


def test_two_live_copies_of_a_data_directory_are_found(
    kafka: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic, node="original")
    original = Collector(tmp_path / "original", settings)
    copy = Collector(tmp_path / "copy", settings)
    with ended(original, copy):
        original.start()
        joined(original)
        original.freeze()  # so that no file is renamed meanwhile
        shutil.copytree(original.data_dir, copy.data_dir)
        original.thaw()
        copy.start()
        wait_until(lambda: events(original.log, "data_dir_copied"), "the copy is found")
        assert not events(copy.log, "data_dir_copied")
        assert [] == [line for line in original.log.splitlines() if not line.startswith("{")]


def test_host_names_may_be_equal(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic, node="")
    machines = [Collector(tmp_path / name, settings) for name in ("a", "b")]
    with ended(*machines):
        for each in machines:
            each.start()
            joined(each)
        assert [] == events(machines[0].log, "node_name_in_use")
        wait_until(lambda: events(machines[1].log, "node_name_in_use"), "the warning")
        for each in machines:
            each.stop()


def happened(server: Server, event: str, times: int) -> bool:
    return len(events(server.log, event)) >= times


def test_the_group_survives_an_upgrade(kafka: KafkaBroker, topic: str, tmp_path: Path) -> None:
    settings = SETTINGS.format(address=kafka.address, topic=topic, node="upgraded")
    with serving(tmp_path / "data", "--workers", "1", settings=settings) as server:
        wait_until(lambda: events(server.log, "node_joined"), "it joined")
        open_files = []
        for upgrades in (1, 2):
            server.process.send_signal(signal.SIGUSR2)
            wait_until(partial(happened, server, "node_joined", upgrades + 1), "it joined again")
            wait_until(partial(happened, server, "upgrade_completed", upgrades), "the upgrade")
            open_files.append(len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())))
        assert abs(open_files[1] - open_files[0]) < 6  # connections to brokers come and go
        assert 'pixelfast_node_info{node="upgraded"} 1' in server.admin("/metrics")
    assert not events(server.log, "data_dir_copied")
