"""`[cluster]` with brokers that require TLS, passwords and permissions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deliver.products.real.kafka_broker import KafkaBroker
from tests.deliver.products.topics import Topics
from tests.deliver.running import run
from tests.fake_destination import FakeDestination, FakeResponse, Request
from tests.load import Load
from tests.reliability.cluster.machines import Collector, Machine
from tests.waiting import until

PASSWORDS = {"collector": "s3cr3t-of-collectors", "deliverer": "s3cr3t-of-deliverers"}
WRITE_KEY = "wk-permitted"
SETTINGS = """
[[sources]]
name = "web"
write_keys = ["wk-permitted"]
[cluster]
brokers = ["{broker}"]
topic = "{topic}"
min_insync = 1
when_unavailable = "{when_unavailable}"
max_replication_wait_s = {wait_s}
security = "sasl_ssl"
username = "{user}"
password = "{password}"
tls_ca = "{ca}"
tls_cert = "{cert}"
tls_key = "{key}"
node = "{node}"
"""
DESTINATION = """
[[destinations]]
name = "hook"
type = "http"
url = "{url}"
start = "earliest"
max_age_s = 0.05
"""


@pytest.fixture
def topic(request: pytest.FixtureRequest, topics: Topics) -> str:
    for user, password in PASSWORDS.items():
        topics.set_password(user, password)
    return topics.create(f"log-{abs(hash(request.node.name)):x}", partitions=3)


class Secured:
    """Settings of machines of one topic."""

    def __init__(self, kafka: KafkaBroker, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic

    def settings(self, user: str, when_unavailable: str = "spool", **changed: str) -> str:
        values = {
            "wait_s": "0.3",
            "password": PASSWORDS.get(user, PASSWORDS["collector"]),
            "node": "",
            "ca": self._kafka.ca,
            "cert": self._kafka.client_cert,
            "key": self._kafka.client_key,
            **changed,
        }
        return SETTINGS.format(
            broker=self._kafka.sasl_address,
            topic=self._topic,
            user=user,
            when_unavailable=when_unavailable,
            **values,
        )


@contextmanager
def machines(collector: Collector, deliverer: Machine) -> Iterator[None]:
    """Run two machines; check that they log no password."""
    try:
        collector.start()
        deliverer.start()
        yield
    finally:
        for each in (collector, deliverer):
            if each.is_running:
                each.kill()
    for each in (collector, deliverer):
        assert [] == [line for line in each.log.splitlines() if "s3cr3t" in line]


def test_collectors_and_deliverers_need_few_permissions(
    kafka: KafkaBroker, topics: Topics, topic: str, tmp_path: Path
) -> None:
    """The documentation lists them."""
    topics.allow("collector", topic, "WRITE", "DESCRIBE_CONFIGS")
    topics.allow("deliverer", topic, "READ", "DESCRIBE_CONFIGS")
    topics.allow("deliverer", f"{topic}-dead", "CREATE", "DESCRIBE_CONFIGS", "READ", "WRITE")
    topics.allow("deliverer", "pixelfast.", "READ", kind="group", is_prefix=True)
    topics.allow("collector", "pixelfast.nodes", "READ", kind="group")
    secured = Secured(kafka, topic)

    def judge(request: Request) -> FakeResponse:
        names = {event["event"] for event in request.events()}
        return FakeResponse(400) if "e-7" in names else FakeResponse()

    async def main() -> None:
        async with FakeDestination(judge) as hook:
            collector = Collector(tmp_path / "c", secured.settings("collector", wait_s="30"))
            destination = DESTINATION.format(url=hook.url)
            deliverer = Machine(tmp_path / "d", secured.settings("deliverer") + destination)
            with machines(collector, deliverer):
                load = Load(collector.port, WRITE_KEY, connections=1)
                load.start()
                await load.until_acked(20)
                await load.stop()
                left = {*load.acked} - {"e-7"}
                await until(lambda: left <= {each["event"] for each in hook.events()})
                await until(lambda: topics.read(f"{topic}-dead"))
                for each in (collector, deliverer):
                    await until(lambda each=each: "node_joined" in each.log)
                    await asyncio.to_thread(each.stop)
                    assert "topic_not_checked" not in each.log
                    assert "node_not_joined" not in each.log

    run(main())
    (letter,) = topics.read(f"{topic}-dead")
    assert "e-7" == json.loads(letter.value)["event"]["event"]


def test_a_machine_works_without_the_permission_for_the_group_of_machines(
    kafka: KafkaBroker, topics: Topics, topic: str, tmp_path: Path
) -> None:
    user = "unnamed"
    topics.set_password(user, PASSWORDS["collector"])
    topics.allow(user, topic, "WRITE", "DESCRIBE_CONFIGS")
    collector = Collector(tmp_path / "c", Secured(kafka, topic).settings(user, node="alone"))

    async def main() -> None:
        collector.start()
        try:
            load = Load(collector.port, WRITE_KEY, connections=1)
            load.start()
            await load.until_acked(20)
            await load.stop()
            await until(lambda: "node_not_joined" in collector.log)
            await asyncio.to_thread(collector.stop)
        finally:
            if collector.is_running:
                collector.kill()

    run(main())
    found = [line for line in collector.log.splitlines() if "node_n" in line]
    assert ["node_name_not_checked", "node_not_joined"] == [json.loads(x)["event"] for x in found]
    assert "Group authorization failed" in found[1]


@pytest.mark.parametrize(
    ("wrong", "words", "when_unavailable", "status"),
    [
        ("password", "Authentication failed", "reject", 503),
        ("ca", "certificate verify failed", "spool", 200),
    ],
)
def test_a_wrong_password_or_certificate_authority_is_named(
    kafka: KafkaBroker, tmp_path: Path, wrong: str, words: str, when_unavailable: str, status: int
) -> None:
    changed = {"password": "wr0ng-s3cr3t", "ca": kafka.client_cert}[wrong]
    secured = Secured(kafka, "any")
    collector = Collector(
        tmp_path / "c",
        secured.settings("collector", when_unavailable, wait_s="3", **{wrong: changed}),
    )
    settings = secured.settings("deliverer", **{wrong: changed})
    deliverer = Machine(tmp_path / "d", settings + DESTINATION.format(url="http://127.0.0.1:1/"))

    def reasons(machine: Machine, event: str) -> list[str]:
        lines = map(json.loads, machine.log.splitlines())
        return [each["error"] for each in lines if each["event"] == event]

    async def main() -> None:
        with machines(collector, deliverer):
            load = Load(collector.port, WRITE_KEY, connections=1, pause_s=0.01)
            load.start()
            await until(lambda: reasons(collector, "brokers_unavailable"))
            acked = len(load.acked)
            await until(lambda: len(load.acked) + load.rejected.get(503, 0) > 5)
            await load.stop()
            assert {200: True, 503: False}[status] == (len(load.acked) > acked)
            await until(lambda: reasons(deliverer, "cluster_unavailable"))

    run(main())
    assert words in reasons(collector, "brokers_unavailable")[0]
    assert words in reasons(deliverer, "cluster_unavailable")[0]
