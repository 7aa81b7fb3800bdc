"""The settings that a topic must have."""

from __future__ import annotations

import socket

import pytest
from confluent_kafka import KafkaException

from pixelfast.cluster.topic import problems_of, read_topic_settings, retention_problems
from pixelfast.config import Cluster

GOOD = {
    "cleanup.policy": "delete",
    "unclean.leader.election.enable": "false",
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
}


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        ({}, []),
        (
            {"min.insync.replicas": "1"},
            ["min.insync.replicas is 1; expected at least 2 (cluster.min_insync)"],
        ),
        (
            {"max.message.bytes": "999999"},
            ["max.message.bytes is 999999; expected at least 1000000 (cluster.max_message_bytes)"],
        ),
        (
            {"cleanup.policy": "compact,delete", "unclean.leader.election.enable": "true"},
            [
                "cleanup.policy is compact,delete; expected delete",
                "unclean.leader.election.enable is true; expected false",
            ],
        ),
        ({"message.timestamp.before.max.ms": "604800000"}, []),
        (
            {"message.timestamp.before.max.ms": "3600000"},
            [
                "message.timestamp.before.max.ms is 3600000;"
                " expected at least retention.ms (604800000)"
            ],
        ),
        (
            {"message.timestamp.before.max.ms": "604800000", "retention.ms": "-1"},
            ["message.timestamp.before.max.ms is 604800000; expected at least retention.ms (-1)"],
        ),
        (
            {
                "message.timestamp.before.max.ms": "3600000",
                "message.timestamp.type": "LogAppendTime",
            },
            [],
        ),
    ],
)
def test_a_topic_must_keep_what_it_has_acknowledged(
    found: dict[str, str], problems: list[str]
) -> None:
    assert problems == problems_of(GOOD | found, Cluster(brokers=("b:1",)))


def test_settings_that_a_broker_does_not_know_are_not_checked() -> None:
    assert [] == problems_of({}, Cluster(brokers=("b:1",)))


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        ({}, []),
        ({"retention.ms": "-1"}, []),
        ({"retention.ms": "259200000"}, []),
        (
            {"retention.ms": "259199999"},
            ["retention.ms is 259199999; expected at least 259200000 (the largest retry_for_s)"],
        ),
        (
            {"retention.bytes": "1073741824"},
            ["retention.bytes is 1073741824; expected -1, because it ignores retry_for_s"],
        ),
    ],
)
def test_a_topic_should_keep_events_while_destinations_retry(
    found: dict[str, str], problems: list[str]
) -> None:
    assert problems == retention_problems(GOOD | found, 259_200.0)


def test_the_retention_is_not_checked_if_the_brokers_do_not_tell_it() -> None:
    assert [] == retention_problems({}, 259_200.0)


def test_a_topic_is_not_used_unchecked_because_no_broker_responds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(KafkaException, match="Connection refused"):
        read_topic_settings(Cluster(brokers=(f"127.0.0.1:{port}",)), 0.5)
