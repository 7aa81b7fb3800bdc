"""From the settings of `[cluster]` to the properties of the clients of a delivery process.

The settings make sure that `options` has none of those that carry the promise.
"""

from __future__ import annotations

from pixelfast.config import Cluster
from pixelfast.kafka.connection import (
    Properties,
    connection_properties,
    consumer_options,
    producer_options,
)

__all__ = [
    "DEAD_TIMEOUT_S",
    "FETCH_WAIT_MS",
    "dead_consumer_properties",
    "dead_producer_properties",
    "fetcher_properties",
    "group_properties",
]

DEAD_TIMEOUT_S = 30.0  # of the brokers, to store a dead letter
_SESSION_S = 10.0  # after which the partitions of a killed process get another owner
_LOOK_S = 10.0  # between two searches for partitions that were added to the topic
_HEARTBEAT_S = 1.0  # a rebalance is noticed at a heartbeat
_GROUP_KIB = 16 * 1024  # that librdkafka keeps ready, of all partitions
_FETCHER_KIB = 4 * 1024
FETCH_WAIT_MS = 10  # for which a broker waits for messages at the end of a partition


def group_properties(cluster: Cluster, group: str) -> Properties:
    """Return the properties of a destination's consumer in its group, without its callbacks."""
    return {
        "topic.metadata.refresh.interval.ms": int(_LOOK_S * 1000),
        **_consumer_properties(cluster, group),
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.offset.store": False,
        "queued.max.messages.kbytes": _GROUP_KIB,
    }


def fetcher_properties(cluster: Cluster, group: str) -> Properties:
    """Return the properties of a consumer that reads any messages again, and joins no group."""
    return {
        **_consumer_properties(cluster, group),
        "enable.partition.eof": True,
        "statistics.interval.ms": 0,
        "queued.max.messages.kbytes": _FETCHER_KIB,
        "fetch.wait.max.ms": FETCH_WAIT_MS,  # a fetch at the end would delay the next one
    }


def dead_consumer_properties(cluster: Cluster) -> Properties:
    """Return the properties of a consumer of dead letters, which joins no group."""
    return {
        **_consumer_properties(cluster, "pixelfast.dead"),
        "enable.partition.eof": True,
        "statistics.interval.ms": 0,
    }


def dead_producer_properties(cluster: Cluster) -> Properties:
    """Return the properties of the producer of dead letters."""
    return {
        **connection_properties(cluster),
        **producer_options(cluster),
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": cluster.compression,
        "message.timeout.ms": int(DEAD_TIMEOUT_S * 1000),
        "statistics.interval.ms": 0,
    }


def _consumer_properties(cluster: Cluster, group: str) -> Properties:
    return {
        "session.timeout.ms": int(_SESSION_S * 1000),
        "heartbeat.interval.ms": int(_HEARTBEAT_S * 1000),
        **connection_properties(cluster),
        **consumer_options(cluster),
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # librdkafka raises its limits of responses, so that the largest message fits in one.
        "message.max.bytes": cluster.max_message_bytes,
    }
