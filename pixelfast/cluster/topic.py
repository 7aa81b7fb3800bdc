"""Checks that a topic keeps what it has acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from pixelfast.config import Cluster
from pixelfast.kafka.connection import connection_properties
from pixelfast.kafka.errors import words_of
from pixelfast.kafka.logger import KafkaLogger

__all__ = ["check_topic", "problems_of"]

_TIMEOUT_S = 5.0


def check_topic(settings: Cluster) -> list[str]:
    """Return what is wrong with the settings of the cluster's topic. Blocks.

    If the brokers do not allow reading them, that is logged, and nothing is wrong.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
        RESOURCE_TOPIC,
        AdminClient,
        ConfigResource,
    )

    log = structlog.get_logger("cluster")
    properties: dict[str, Any] = {**connection_properties(settings), **settings.options}
    admin = AdminClient(properties, logger=KafkaLogger(log))
    resource = ConfigResource(RESOURCE_TOPIC, settings.topic)
    try:
        future = admin.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource]
        found = future.result(2 * _TIMEOUT_S)
    except KafkaException as error:
        log.warning("topic_not_checked", topic=settings.topic, error=words_of(error.args[0]))
        return []
    return problems_of({name: entry.value for name, entry in found.items()}, settings)


def problems_of(found: Mapping[str, str | None], settings: Cluster) -> list[str]:
    """Return what is wrong with these settings of a topic.

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
    return problems
