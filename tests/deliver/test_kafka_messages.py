"""From the settings of a Kafka destination to properties, and from batches to messages."""

from __future__ import annotations

from typing import Any

import pytest

from pixelfast.config import KafkaDestination
from pixelfast.deliver.destinations.kafka import KafkaSender
from pixelfast.deliver.kafka.messages import Message, Messages
from pixelfast.deliver.kafka.properties import properties
from pixelfast.errors import DestinationError
from tests.deliver.kafka import SETTINGS, batch, changed, tracked


def messages(settings: KafkaDestination, *events: bytes, **options: Any) -> list[Message]:
    max_bytes = options.pop("max_bytes", 10**6)
    return list(Messages(settings).of(batch(*events, **options), max_bytes))


def test_an_event_becomes_a_message_with_its_fields_as_headers() -> None:
    (message,) = messages(SETTINGS, tracked(1))
    assert ("pixels", tracked(1), "u1", 1_769_817_600_250) == (
        message.topic,
        message.value,
        message.key,
        message.timestamp_ms,
    )
    assert [
        ("messageId", b"m1"),
        ("type", b"track"),
        ("source", b"web"),
        ("content-type", b"application/json"),
    ] == message.headers


@pytest.mark.parametrize(
    ("key", "more", "expected"),
    [
        ("user", {}, "u1"),
        ("user", {"userId": ""}, "a1"),
        ("user", {"userId": None}, "a1"),
        ("user", {"userId": 42}, "42"),
        ("user", {"userId": {"a": [1]}}, '{"a":[1]}'),
        ("user", {"userId": "ü"}, "ü"),
        ("user", {"userId": None, "anonymousId": None}, None),
        ("source", {}, "web"),
        ("none", {}, None),
    ],
)
def test_a_key_is_that_of_the_user_of_the_source_or_none(
    key: Any, more: dict[str, Any], expected: str | None
) -> None:
    (message,) = messages(changed(key=key), tracked(1, **more))
    assert expected == message.key


@pytest.mark.parametrize("received", [None, 5, "", "yesterday", "9999-99-99T00:00:00Z"])
def test_an_event_without_a_valid_time_has_the_time_of_sending(received: object) -> None:
    (message,) = messages(SETTINGS, tracked(1, receivedAt=received))
    assert 0 == message.timestamp_ms


def test_a_message_is_never_from_the_future() -> None:
    received = ["2026-01-31T00:00:00.000Z", "2026-01-31T00:00:00.001Z", "2226-01-31T00:00:00Z"]
    events = batch(*(tracked(n, receivedAt=each) for n, each in enumerate(received)))
    now_ms = 1_769_817_600_000
    found = Messages(SETTINGS, lambda: now_ms / 1000).of(events, 10**6)
    assert [now_ms] * 3 == [each.timestamp_ms for each in found]


def test_something_that_is_not_an_event_is_sent_without_a_key() -> None:
    first, second = messages(SETTINGS, b"[1]", b"{")
    assert (b"[1]", None, 0) == (first.value, first.key, first.timestamp_ms)
    assert (b"{", None, 0) == (second.value, second.key, second.timestamp_ms)


def test_the_topic_depends_on_the_source_and_the_type() -> None:
    events = [tracked(1), tracked(2, type="page"), tracked(3)]
    found = messages(changed(topic="x.{source}.{type}"), *events, sources=["web", "web", "mail"])
    assert ["x.web.track", "x.web.page", "x.mail.track"] == [each.topic for each in found]


def test_a_batch_has_the_events_of_one_source_within_the_limit() -> None:
    events = [tracked(n) for n in range(30)]
    sources = ["web"] * 20 + ["mail"] * 10
    limit = 1024 + 7 * (len(events[-1]) + 1)
    settings = changed(message="batch", key="source", topic="x.{source}")
    found = messages(settings, *events, sources=sources, max_bytes=limit)
    assert [(0, 7), (7, 7), (14, 6), (20, 7), (27, 3)] == [(m.first, m.events) for m in found]
    assert events == [line for each in found for line in each.value.splitlines()]
    assert ["x.web"] * 3 + ["x.mail"] * 2 == [each.topic for each in found]
    assert ["web"] * 3 + ["mail"] * 2 == [each.key for each in found]
    assert ("events", b"7") in found[0].headers
    assert 1_769_817_600_250 == found[0].timestamp_ms


def test_an_event_above_the_limit_is_a_batch_of_its_own() -> None:
    settings = changed(message="batch")
    found = messages(settings, tracked(1), tracked(2, text="x" * 5000), tracked(3), max_bytes=2048)
    assert [1, 1, 1] == [each.events for each in found]
    assert [None, None, None] == [each.key for each in found]


# --- properties -----------------------------------------------------------------------------------


def test_the_producer_is_idempotent_waits_for_all_replicas_and_has_a_limited_queue() -> None:
    found = properties(changed(timeout_s=7.0, connect_timeout_s=3.0, max_bytes=2**20), 10**6)
    expected = {
        "bootstrap.servers": "192.0.2.1:9092",
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 7000,
        "socket.connection.setup.timeout.ms": 3000,
        "queue.buffering.max.kbytes": 2048,
        "queue.buffering.max.messages": 0,
        "compression.type": "zstd",
    }
    assert expected == {name: found[name] for name in expected}
    assert not any(name.startswith(("sasl.", "ssl.")) for name in found)


def test_options_replace_defaults_and_the_password_is_passed_on() -> None:
    settings = changed(
        brokers=("192.0.2.1:9092", "[2001:db8::1]:9092"),
        security="sasl_ssl",
        username="pixelfast",
        password="s3cr3t",
        tls_ca="/ca.pem",
        tls_cert="/both.pem",
        options={"linger.ms": "50", "client.rack": "eu-1a"},
    )
    found = properties(settings, 10**6)
    assert "192.0.2.1:9092,[2001:db8::1]:9092" == found["bootstrap.servers"]
    assert ("50", "eu-1a") == (found["linger.ms"], found["client.rack"])
    assert ("SCRAM-SHA-512", "pixelfast", "s3cr3t") == tuple(
        found[f"sasl.{name}"] for name in ("mechanism", "username", "password")
    )
    assert ("/ca.pem", "/both.pem", "/both.pem") == tuple(
        found[f"ssl.{name}.location"] for name in ("ca", "certificate", "key")
    )


def test_without_the_package_the_destination_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DestinationError, match=r"pip install 'pixelfast\[kafka\]'"):
        KafkaSender(SETTINGS)
