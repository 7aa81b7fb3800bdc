"""The settings that a topic must have."""

from __future__ import annotations

import pytest

from pixelfast.cluster.topic import problems_of
from pixelfast.config import Cluster

GOOD = {
    "cleanup.policy": "delete",
    "unclean.leader.election.enable": "false",
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
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
    ],
)
def test_a_topic_must_keep_what_it_has_acknowledged(
    found: dict[str, str], problems: list[str]
) -> None:
    assert problems == problems_of(GOOD | found, Cluster(brokers=("b:1",)))


def test_settings_that_a_broker_does_not_know_are_not_checked() -> None:
    assert [] == problems_of({}, Cluster(brokers=("b:1",)))
