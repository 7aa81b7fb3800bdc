"""Checks that a topic keeps what it has acknowledged, for long enough to deliver it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import structlog

from pixelfast.config import Cluster
from pixelfast.kafka.admin import Admin
from pixelfast.kafka.errors import error_message, hides_settings

__all__ = [
    "TopicSettings",
    "problems_of",
    "read_topic_settings",
    "replica_problems",
    "retention_problems",
]

TopicSettings: TypeAlias = Mapping[str, str | None]

_TIMEOUT_S = 5.0
_UNLIMITED_MS = 2**63 - 1


def read_topic_settings(settings: Cluster, timeout_s: float = _TIMEOUT_S) -> TopicSettings:
    """Return the settings of the cluster's topic. Blocks.

    If the brokers do not return them to this user, that is logged, and the result is empty.
    pixelfast then runs without checking them.

    Raises:
        KafkaException: the brokers do not respond within `timeout_s`, or report another error.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
        RESOURCE_TOPIC,
        ConfigResource,
    )

    log = structlog.get_logger("cluster")
    admin = Admin(settings, log)
    resource = ConfigResource(RESOURCE_TOPIC, settings.topic)
    found = admin.client.describe_configs([resource], request_timeout=2 * timeout_s)
    try:
        described = admin.wait(found[resource], timeout_s)
    except KafkaException as error:
        if not hides_settings(error.args[0]):
            raise
        log.warning("topic_not_checked", topic=settings.topic, error=error_message(error.args[0]))
        return {}
    return {name: entry.value for name, entry in described.items()}


def problems_of(found: TopicSettings, settings: Cluster) -> list[str]:
    """Return why nothing may be replicated to a topic with these settings.

    >>> cluster = Cluster(brokers=("kafka-1:9092",))
    >>> good = {"cleanup.policy": "delete", "min.insync.replicas": "2"}
    >>> problems_of(good, cluster)
    []
    >>> for problem in problems_of({**good, "min.insync.replicas": "1"}, cluster):
    ...     print(problem)
    min.insync.replicas is 1; expected at least 2 (cluster.min_insync)
    """
    problems = []
    for name, least, setting in (
        ("min.insync.replicas", settings.min_insync, "min_insync"),
        ("max.message.bytes", settings.max_message_bytes, "max_message_bytes"),
    ):
        value = found.get(name)
        if value is not None and int(value) < least:
            what = f"{name} is {value}; expected at least {least} (cluster.{setting})"
            problems.append(what)
    for name, expected in (
        ("cleanup.policy", "delete"),
        ("unclean.leader.election.enable", "false"),
    ):
        value = found.get(name)
        if value is not None and value != expected:
            problems.append(f"{name} is {value}; expected {expected}")
    return [*problems, *_rejected_times(found)]


def _rejected_times(found: TopicSettings) -> Iterator[str]:
    """Yield a problem if the brokers reject old messages that the topic would keep.

    Messages have the time at which their events were received. After an outage of the brokers that
    is longer than the limit, replication could not continue.
    """
    name = "message.timestamp.before.max.ms"
    if found.get("message.timestamp.type", "CreateTime") != "CreateTime":
        return
    limit, kept = found.get(name), found.get("retention.ms")
    if limit is not None and kept is not None and int(limit) < _milliseconds(kept):
        yield f"{name} is {limit}; expected at least retention.ms ({kept})"


def replica_problems(
    found: TopicSettings, replicas: Mapping[int, Sequence[int]], kind: str = "replica"
) -> list[str]:
    """Return why no broker acknowledges the messages of a partition; librdkafka retries silently.

    `replicas` are the brokers of each partition that have its replicas, or those in sync.

    >>> replica_problems({"min.insync.replicas": "2"}, {0: [1, 2], 1: [3]})
    ['partition 1 has 1 replica; expected at least 2 (min.insync.replicas)']
    """
    least = int(found.get("min.insync.replicas") or 0)
    short = {number: len(each) for number, each in replicas.items() if len(each) < least}
    if not short:
        return []
    number = min(short, key=lambda each: (short[each], each))
    kinds = kind if short[number] == 1 else f"{kind}s"
    what = f"partition {number} has {short[number]} {kinds}; expected at least {least}"
    return [f"{what} (min.insync.replicas)"]


def retention_problems(found: TopicSettings, retry_for_s: float) -> list[str]:
    """Return why events may be deleted before they are delivered.

    `retry_for_s` is the longest time for which a destination retries.

    >>> retention_problems({"retention.ms": "3600000", "retention.bytes": "-1"}, 7200.0)
    ['retention.ms is 3600000; expected at least 7200000 (the largest retry_for_s)']
    """
    problems = []
    kept, size = found.get("retention.ms"), found.get("retention.bytes")
    wanted = round(retry_for_s * 1000)
    if kept is not None and _milliseconds(kept) < wanted:
        problems.append(
            f"retention.ms is {kept}; expected at least {wanted} (the largest retry_for_s)"
        )
    if size is not None and int(size) >= 0:
        problems.append(f"retention.bytes is {size}; expected -1, because it ignores retry_for_s")
    return problems


def _milliseconds(value: str) -> int:
    """Return a time in Kafka's settings, where -1 means no limit."""
    return _UNLIMITED_MS if int(value) < 0 else int(value)
