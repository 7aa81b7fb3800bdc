"""What `pixelfast check` says about `[cluster]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from pixelfast.cluster.producer import FrameProducer, TopicUnusable, producer_properties
from pixelfast.config import Cluster, Config, Redactor, describe
from pixelfast.config.reader import config_from_table
from pixelfast.config.words import shown
from pixelfast.deliver.cluster.properties import (
    dead_consumer_properties,
    dead_producer_properties,
    fetcher_properties,
    group_properties,
)
from pixelfast.deliver.kafka.check import check_properties
from pixelfast.errors import ConfigErrors
from pixelfast.kafka.connection import admin_properties
from pixelfast.operate.reload import merge
from tests.program import run_pixelfast

BROKERS = ["kafka-1:9092", "[2001:db8::1]:9092"]
SASL = {"security": "sasl_ssl", "username": "pixelfast", "password": "s3cr3t-of-kafka"}
FILE = {"name": "f", "type": "file"}
NODE = 'expected at most 63 letters, digits, . _ or -, or ""'
RETENTION = (
    "cannot be combined with [cluster], because the retention of the topic determines how long"
    " events are kept"
)


def problems_in(cluster: dict[str, Any] | None = None, **others: Any) -> list[str]:
    try:
        config_from_table({"cluster": {"brokers": BROKERS, **(cluster or {})}, **others})
    except ConfigErrors as errors:
        return [str(each) for each in errors.problems]
    return []


def test_without_the_section_there_is_no_cluster() -> None:
    assert Config().cluster is None
    assert "cluster" not in describe(Config())


@pytest.mark.parametrize(
    "cluster",
    [
        {},
        {"ack": "replicated", "when_unavailable": "reject", "max_replication_wait_s": 2.0},
        {"topic": "pixels_1.a-b", "min_insync": 1, "max_message_bytes": "4MiB"},
        {"topic": "t" * 244, "max_message_bytes": "1GB"},
        {"node": "a" * 63},
        {"node": "Web_1.example.com"},
        {**SASL, "tls_ca": "/etc/ca.pem", "sasl_mechanism": "PLAIN"},
        {"options": {"client.rack": "eu-1a", "linger.ms": "2", "fetch.min.bytes": "1"}},
    ],
)
def test_valid_settings_are_accepted(cluster: dict[str, Any]) -> None:
    assert [] == problems_in(cluster, spool={"ack": "synced"}, destinations=[FILE])


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ({"brokers": []}, "cluster.brokers = []: expected an array with at least 1 item"),
        (
            {"topic": "pixels.{source}"},
            'cluster.topic = "pixels.{source}": expected 1 to 244 letters, digits, . _ or -',
        ),
        (
            {"topic": "t" * 245},
            f"cluster.topic = {shown('t' * 245)}: expected 1 to 244 letters, digits, . _ or -",
        ),
        ({"topic": ""}, 'cluster.topic = "": expected 1 to 244 letters, digits, . _ or -'),
        (
            {"max_message_bytes": 10**9 + 1},
            "cluster.max_message_bytes = 1000000001: expected a number of bytes or a string such as"
            ' "64MiB" (units B kB MB GB TB KiB MiB GiB TiB) from 128KiB to 1GB',
        ),
        ({"node": "web/1"}, f'cluster.node = "web/1": {NODE}'),
        ({"node": "wéb"}, f'cluster.node = "wéb": {NODE}'),
        ({"node": "a" * 64}, f"cluster.node = {shown('a' * 64)}: {NODE}"),
        ({"ack": "synced"}, 'cluster.ack = "synced": expected "replicated"'),
        (
            {"security": "sasl_ssl", "username": "u"},
            'cluster.password: required with security = "sasl_ssl"',
        ),
        ({"tls_ca": "/ca"}, 'cluster.tls_ca: requires security = "ssl" or "sasl_ssl"'),
        ({"security": "ssl", "tls_key": "/k"}, "cluster.tls_key: requires tls_cert"),
    ],
)
def test_settings_that_are_not_valid_are_rejected(cluster: dict[str, Any], problem: str) -> None:
    assert [problem] == problems_in(cluster)


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({"spool": {"on_full": "drop_oldest"}}, f'spool.on_full = "drop_oldest": {RETENTION}'),
        (
            {"spool": {"ack": "written"}},
            'spool.ack = "written": cannot be combined with [cluster]; use cluster.ack',
        ),
        (
            {"destinations": [{**FILE, "required": False}]},
            f"destinations[f].required = false: {RETENTION}",
        ),
        (
            {"destinations": [{**FILE, "max_lag_bytes": 1000}]},
            f"destinations[f].max_lag_bytes = 1000: {RETENTION}",
        ),
    ],
)
def test_settings_of_the_local_retention_are_rejected(others: dict[str, Any], problem: str) -> None:
    assert [problem] == problems_in(**others)


def test_a_destination_cannot_have_the_consumer_group_of_the_machines() -> None:
    expected = (
        'destinations[nodes].name = "nodes": cannot be used with [cluster]: pixelfast.nodes is the'
        " group of the machines"
    )
    assert [expected] == problems_in(destinations=[{**FILE, "name": "nodes"}])
    config_from_table({"destinations": [{**FILE, "name": "nodes"}]})


def test_the_name_of_a_machine_is_its_host_name_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "web-1.example.com")
    assert "web-1.example.com" == Cluster(brokers=()).node_name
    assert "chosen" == Cluster(brokers=(), node="chosen").node_name


KAFKA = {"name": "k", "type": "kafka", "brokers": ["other:9092", "KAFKA-1:9092"]}
SOURCES = [{"name": "web", "write_keys": ["wk_web_0123456789"]}]


@pytest.mark.parametrize(
    ("cluster", "topic", "found"),
    [
        ("pixels", "pixels", "pixels contains its events"),
        ("pixels", "pixels-dead", "pixels-dead contains its dead letters"),
        ("pixels.web", "pixels.{source}", "pixels.web contains its events"),
        ("track-web", "{type}-{source}", "track-web contains its events"),
        ("pixels.web", "{source}-dead", ""),
        ("pixels", "pixels.{source}", ""),
        ("pixels.app", "pixels.{source}", ""),
    ],
)
def test_a_kafka_destination_cannot_write_to_a_topic_of_the_cluster(
    cluster: str, topic: str, found: str
) -> None:
    expected = f'destinations[k].topic = "{topic}": must not be a topic of [cluster]: {found}'
    problems = problems_in(
        {"topic": cluster}, sources=SOURCES, destinations=[{**KAFKA, "topic": topic}]
    )
    assert [expected] * bool(found) == [each.partition(", and")[0] for each in problems]


def test_other_brokers_may_have_topics_of_the_same_names() -> None:
    destination = {**KAFKA, "topic": "pixels", "brokers": ["kafka-1:9093"]}
    assert [] == problems_in({"topic": "pixels"}, destinations=[destination])


def test_a_template_is_compared_for_the_demo_source_if_there_is_no_other() -> None:
    destination = {**KAFKA, "topic": "pixels.{source}"}
    (problem,) = problems_in({"topic": "pixels.demo"}, destinations=[destination])
    assert "pixels.demo contains" in problem


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bootstrap.servers", "use the setting brokers"),
        ("message.timeout.ms", "an event could be stored before an earlier one"),
        ("message.send.max.retries", "an event could be stored before an earlier one"),
        ("enable.gapless.guarantee", "an event could be stored after a later one"),
        ("message.max.bytes", "use the setting max_message_bytes"),
        ("request.required.acks", "an acknowledged event could be lost"),
        ("enable.idempotence", "must not be changed"),
        ("queue.buffering.max.kbytes", "pixelfast limits the queue itself"),
        ("auto.offset.reset", "events would be skipped"),
        ("enable.auto.commit", "pixelfast commits what is delivered"),
        ("test.mock.num.brokers", "loses all events"),
        ("group.instance.id", "two members of a group with the same instance id"),
        ("group.protocol", "requires the classic protocol"),
        ("partition.assignment.strategy", "and the strategy cooperative-sticky"),
        ("auto.commit.interval.ms", "pixelfast commits what is delivered"),
        ("offset.store.method", "pixelfast commits what is delivered"),
        ("queued.max.messages.kbytes", "pixelfast limits the memory for fetched messages"),
        ("enable.partition.eof", "pixelfast sets it where it is needed"),
        ("partitioner", "has no effect: pixelfast chooses the partition"),
        ("produce.offset.report", "has no effect: librdkafka does not use it any more"),
    ],
)
def test_a_property_that_weakens_the_promise_is_rejected(name: str, reason: str) -> None:
    (problem,) = problems_in({"options": {name: "1"}})
    assert problem.startswith(f"cluster.options.{name}: ")
    assert reason in problem


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("no.such", "1", 'No such configuration property: "no.such"'),
        ("session.timeout.ms", "600000", "`max.poll.interval.ms`must be >= `session.timeout.ms`"),
        ("max.poll.interval.ms", "5000", "`max.poll.interval.ms`must be >= `session.timeout.ms`"),
        ("fetch.max.bytes", "10", "`fetch.max.bytes` must be >= `message.max.bytes`"),
        (
            "receive.message.max.bytes",
            "1000000",
            "`receive.message.max.bytes` must be >= `fetch.max.bytes` + 512",
        ),
        # Only the producer of dead letters has a limit of time.
        ("linger.ms", "40000", "`message.timeout.ms` must be greater than `linger.ms`"),
    ],
)
def test_a_property_with_which_a_client_could_not_start_is_rejected(
    name: str, value: str, reason: str
) -> None:
    cluster = Cluster(brokers=("kafka-1:9092",), options={name: value})
    assert [f"cluster.options: {reason}"] == [str(each) for each in check_properties((), cluster)]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_message_bytes": 10**9},
        {"options": {"linger.ms": "20", "max.poll.interval.ms": "20000", "check.crcs": "true"}},
        {**SASL, "options": {"session.timeout.ms": "6000", "fetch.max.bytes": "2000000"}},
    ],
)
def test_properties_with_which_all_clients_start_are_accepted(settings: dict[str, Any]) -> None:
    cluster = Cluster(brokers=("kafka-1:9092",), **settings)
    assert [] == list(check_properties((), cluster))


def test_a_consumer_of_events_accepts_responses_with_the_largest_message() -> None:
    options = {"receive.message.max.bytes": "150000000"}  # librdkafka's default: 100 MB
    cluster = Cluster(brokers=("b:1",), max_message_bytes=200_000_000, options=options)
    for properties in (group_properties(cluster, "g"), fetcher_properties(cluster, "g")):
        with pytest.raises(KafkaException, match=r"`receive\.message\.max\.bytes` must be >="):
            Consumer({**properties, "logger": _Lines()})


def test_each_property_is_passed_to_the_kind_of_client_that_has_it() -> None:
    """librdkafka logs a warning for a property that it ignores."""
    options = {
        **dict.fromkeys(("check.crcs", "enable.metrics.push"), "true"),
        **dict.fromkeys(("coordinator.query.interval.ms", "fetch.error.backoff.ms"), "1000"),
        **dict.fromkeys(("max.poll.interval.ms", "session.timeout.ms"), "20000"),
        **dict.fromkeys(("queued.min.messages", "batch.num.messages", "linger.ms"), "10"),
        **dict.fromkeys(("retry.backoff.ms", "fetch.queue.backoff.ms"), "10"),
        **dict.fromkeys(("queue.buffering.backpressure.threshold", "compression.level"), "1"),
        "max.partition.fetch.bytes": "1000000",
        "client.rack": "a",
    }
    cluster = Cluster(brokers=("192.0.2.1:9092",), options=options)
    log = _Lines()
    for properties in (
        producer_properties(cluster, 10**6),
        dead_producer_properties(cluster),
        admin_properties(cluster),
    ):
        Producer({**properties, "logger": log}).poll(0)
    for properties in (
        group_properties(cluster, "g"),
        fetcher_properties(cluster, "g"),
        dead_consumer_properties(cluster),
    ):
        consumer = Consumer({**properties, "logger": log})
        consumer.poll(0)
        consumer.close()
    assert [] == [line for line in log.lines if "will be ignored" in line]


class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, _level: int, form: str, *arguments: object) -> None:
        self.lines.append(form % arguments)


def test_check_builds_the_clients_of_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text('[cluster]\nbrokers = ["kafka-1:9092"]\noptions = { "no.such" = "1" }\n')
    done = run_pixelfast("check", str(path))
    assert 2 == done.returncode
    assert 'cluster.options: No such configuration property: "no.such"' in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("tls_ca", None, "No such file or directory"), ("tls_cert", "no", "not a PEM file")],
)
def test_a_file_for_tls_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    files: dict[str, Any] = {"security": "ssl", name: str(path)}
    cluster = Cluster(brokers=("192.0.2.1:9092",), **files)
    assert [f"cluster: {name} {path}: {reason}"] == [
        str(each) for each in check_properties((), cluster)
    ]
    assert [] == list(check_properties((), cluster, without_security=True))
    with pytest.raises(TopicUnusable) as raised:
        FrameProducer(cluster, 1_000_000, print, print)
    assert f"cluster.{name} {path}: {reason}" == str(raised.value)


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    expected = "requires the package confluent-kafka: pip install 'pixelfast[kafka]'"
    assert [f"cluster: {expected}"] == problems_in()


def test_the_password_is_hidden_everywhere() -> None:
    config = config_from_table({"cluster": {"brokers": BROKERS, **SASL}})
    assert config.cluster is not None
    assert "s3cr3t-of-kafka" == config.cluster.password
    assert "s3cr3t-of-kafka" not in describe(config)
    assert "wrong …" == Redactor(config).text("wrong s3cr3t-of-kafka")


def test_a_reload_keeps_the_cluster_and_shows_no_password() -> None:
    def with_password(password: str) -> Config:
        settings: dict[str, Any] = {**SASL, "password": password}
        return Config(cluster=Cluster(brokers=("b:1",), **settings))

    merged, (kept,) = merge(with_password("first-secret"), with_password("other-secret"))
    assert "first-secret" == merged.cluster.password  # type: ignore[union-attr]
    assert ("cluster.password", False) == (kept.name, "secret" in str(kept))
    merged, (kept,) = merge(Config(), with_password("other-secret"))
    assert (None, False) == (merged.cluster, "secret" in str(kept))
