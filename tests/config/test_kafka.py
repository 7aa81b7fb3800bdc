"""What `pixelfast check` says about the settings of a Kafka destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import KafkaDestination, describe
from pixelfast.config.reader import config_from_table
from pixelfast.errors import ConfigErrors
from tests.program import run_pixelfast

PLAIN = {"name": "s", "type": "kafka", "brokers": ["kafka-1:9092"], "topic": "pixels"}
SASL = {"security": "sasl_ssl", "username": "pixelfast", "password": "s3cr3t-of-kafka"}


def problems_in(**settings: Any) -> list[str]:
    try:
        config_from_table({"destinations": [{**PLAIN, **settings}]})
    except ConfigErrors as errors:
        return [str(each).removeprefix("destinations[s].") for each in errors.problems]
    return []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"topic": "pixels.{source}-{type}_1"},
        {"brokers": ["192.0.2.1:9092", "[2001:db8::1]:9092", "kafka_1.example.com:1"]},
        {"message": "batch", "topic": "pixels.{source}", "key": "source"},
        {**SASL, "sasl_mechanism": "PLAIN", "tls_ca": "/etc/ca.pem"},
        {"security": "ssl", "tls_cert": "/c.pem", "tls_key": "/k.pem"},
        {"options": {"client.rack": "eu-1a", "linger.ms": "50", "message.max.bytes": "5000000"}},
    ],
)
def test_valid_settings_are_accepted(settings: dict[str, Any]) -> None:
    assert [] == problems_in(**settings)


TOPIC_ALLOWED = (
    "expected at most 249 letters, digits, . _ or -, in which {source} and {type} stand for the"
    " source (up to 63 characters) and the type of an event"
)
BROKER_ALLOWED = 'expected "HOST:PORT" or "[IPV6]:PORT", with a port from 1 to 65535'


@pytest.mark.parametrize(
    "topic", ["", "a b", "pixels.{user}", "pixels.{source", "ü", ".", "a/b", "{source}" * 4]
)
def test_a_topic_that_no_broker_accepts_is_rejected(topic: str) -> None:
    assert [f'topic = "{topic}": {TOPIC_ALLOWED}'] == problems_in(topic=topic)


@pytest.mark.parametrize(
    "broker",
    [
        *("kafka", "kafka:", "kafka:0", "kafka:65536", "a:1,b:2", "plaintext://a:1"),
        *("2001:db8::1:9092", "[::::]:9092", "[1:2]:9092", "[192.0.2.1]:9092", "[::1]:0"),
    ],
)
def test_a_broker_without_a_host_and_a_port_is_rejected(broker: str) -> None:
    assert [f'brokers[0] = "{broker}": {BROKER_ALLOWED}'] == problems_in(brokers=[broker])


NEEDS_SASL = 'requires security = "sasl_ssl" or "sasl_plaintext"'
NEEDS_TLS = 'requires security = "ssl" or "sasl_ssl"'


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        (
            {"security": "sasl_ssl"},
            [
                'username: required with security = "sasl_ssl"',
                'password: required with security = "sasl_ssl"',
            ],
        ),
        ({**SASL, "username": ""}, ['username: required with security = "sasl_ssl"']),
        ({"username": "u"}, [f"username: {NEEDS_SASL}"]),
        ({"security": "ssl", "password": "p"}, [f"password: {NEEDS_SASL}"]),
        ({"sasl_mechanism": "PLAIN"}, [f"sasl_mechanism: {NEEDS_SASL}"]),
        ({"tls_ca": "/ca.pem"}, [f"tls_ca: {NEEDS_TLS}"]),
        ({**SASL, "security": "sasl_plaintext", "tls_cert": "/c"}, [f"tls_cert: {NEEDS_TLS}"]),
        ({"security": "ssl", "tls_key": "/k.pem"}, ["tls_key: requires tls_cert"]),
        (
            {"message": "batch", "key": "user"},
            [
                'key = "user": requires message = "event", because a batch has events of several'
                " users"
            ],
        ),
        (
            {"message": "batch", "topic": "{type}"},
            [
                'topic = "{type}": {type} requires message = "event", because a batch has events'
                " of several types"
            ],
        ),
        ({"timeout_s": 0.5}, ["timeout_s = 0.5: expected a number from 1 to 86400"]),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(
    settings: dict[str, Any], problems: list[str]
) -> None:
    assert problems == problems_in(**settings)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bootstrap.servers", "use the setting brokers"),
        ("sasl.password", "use the setting password"),
        ("message.timeout.ms", "use the setting timeout_s"),
        ("enable.idempotence", "must not be changed: without it, a message is stored twice"),
        ("acks", "an event could be lost after it was counted as delivered"),
        ("request.required.acks", "an event could be lost after it was counted as delivered"),
        ("max.in.flight.requests.per.connection", "librdkafka retries until timeout_s"),
        ("retries", "librdkafka retries until timeout_s"),
        ("enable.gapless.guarantee", "would end the producer"),
        ("transactional.id", "does not send transactions"),
        ("queue.buffering.max.messages", "pixelfast limits the queue by max_bytes"),
        ("delivery.report.only.error", "only if the report of its message says so"),
        ("enable.ssl.certificate.verification", "set tls_ca to trust a private authority"),
        ("ssl.key.password", "options are not secret"),
        ("statistics.interval.ms", "the metrics depend on it"),
        ("plugin.library.paths", "it would load code into pixelfast"),
        ("ssl.engine.location", "it would load code into pixelfast"),
        ("ssl.ca.pem", "use the setting tls_ca"),
        ("ssl.providers", "it would load code into pixelfast"),
        ("queuing.strategy", "messages would be stored in another order"),
        ("default.topic.config", "set each property of topics in options itself"),
        ("test.mock.num.brokers", "which loses all events"),
        ("sasl.oauthbearer.config", "this mechanism is not supported"),
        ("dr_msg_cb", "only a program can set it"),
        ("topic.blacklist", "ignore topics that exist"),
        ("internal.termination.signal", "librdkafka would handle this signal"),
        ("https.ca.location", "this mechanism is not supported"),
        ("socket.blocking.max.ms", "librdkafka does not use it any more"),
        ("group.id", "has no effect: it is a property of consumers"),
        ("session.timeout.ms", "has no effect: it is a property of consumers"),
    ],
)
def test_a_property_that_weakens_the_promise_or_has_a_setting_is_rejected(
    name: str, reason: str
) -> None:
    (problem,) = problems_in(options={name: "1"})
    assert problem.startswith(f"options.{name}: ")
    assert reason in problem


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('"no.such" = "1"', 'No such configuration property: "no.such"'),
        ('"linger.ms" = "soon"', "Invalid value for configuration property"),
        ('"linger.ms" = "30001"', "`message.timeout.ms` must be greater than `linger.ms`"),
    ],
)
def test_a_property_that_librdkafka_does_not_accept_is_rejected_in_its_words(
    tmp_path: Path, options: str, reason: str
) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text(
        '[[destinations]]\nname = "s"\ntype = "kafka"\nbrokers = ["kafka-1:9092"]\n'
        f'topic = "pixels"\noptions = {{ {options} }}\n'
    )
    done = run_pixelfast("check", str(path))
    assert 2 == done.returncode
    assert f"destinations[s].options: {reason}" in done.stderr


def test_a_file_for_tls_that_cannot_be_used_is_rejected_unless_secrets_may_be_absent(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text(
        '[[destinations]]\nname = "s"\ntype = "kafka"\nbrokers = ["kafka-1:9092"]\n'
        f'topic = "pixels"\nsecurity = "ssl"\ntls_ca = "{tmp_path}/absent"\n'
    )
    done = run_pixelfast("check", str(path))
    assert 2 == done.returncode
    problem = f"destinations[s]: tls_ca {tmp_path}/absent: No such file or directory"
    assert problem in done.stderr
    assert 0 == run_pixelfast("check", "--without-secrets", str(path)).returncode


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    expected = "requires the package confluent-kafka: pip install 'pixelfast[kafka]'"
    assert [f'type = "kafka": {expected}'] == problems_in()


def test_the_effective_settings_hide_the_password() -> None:
    config = config_from_table({"destinations": [{**PLAIN, **SASL}]})
    (found,) = config.destinations
    assert isinstance(found, KafkaDestination)
    assert ("s3cr3t-of-kafka", "SCRAM-SHA-512") == (found.password, found.sasl_mechanism)
    assert "s3cr3t-of-kafka" not in describe(config)


def test_a_missing_password_file_can_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "pixelfast.toml"
    path.write_text(
        '[[destinations]]\nname = "s"\ntype = "kafka"\nbrokers = ["kafka-1:9092"]\n'
        'topic = "pixels"\nsecurity = "sasl_ssl"\nusername = "pixelfast"\n'
        f'password = {{ file = "{tmp_path}/missing" }}\n'
    )
    assert 2 == run_pixelfast("check", str(path)).returncode
    done = run_pixelfast("check", "--without-secrets", str(path))
    assert (0, False) == (done.returncode, "password" in done.stderr)
