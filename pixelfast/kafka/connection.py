"""The properties that all clients of librdkafka have, from the settings.

Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pixelfast.config import Cluster, KafkaDestination

__all__ = [
    "STATISTICS_S",
    "Properties",
    "connection_properties",
    "consumer_options",
    "producer_options",
]

Properties: TypeAlias = dict[str, str | int | bool]
STATISTICS_S = 5.0
_MAX_RECONNECT_S = 2.0


def connection_properties(settings: KafkaDestination | Cluster) -> Properties:
    """Return the properties of connections to the brokers, and of statistics about them.

    The check of the settings rejects all of them in `options`, except `client.id` and
    `reconnect.backoff.max.ms`, which may be replaced.
    """
    found: Properties = {
        "client.id": "pixelfast",
        "reconnect.backoff.max.ms": int(_MAX_RECONNECT_S * 1000),
        "bootstrap.servers": ",".join(settings.brokers),
        "security.protocol": settings.security,
        "socket.connection.setup.timeout.ms": int(settings.connect_timeout_s * 1000),
        "statistics.interval.ms": int(STATISTICS_S * 1000),
    }
    if settings.security.startswith("sasl_"):
        found["sasl.mechanism"] = settings.sasl_mechanism
        found["sasl.username"] = settings.username
        found["sasl.password"] = settings.password or ""
    files = {
        "ssl.ca.location": settings.tls_ca,
        "ssl.certificate.location": settings.tls_cert,
        "ssl.key.location": settings.tls_key or settings.tls_cert,
    }
    return found | {name: path for name, path in files.items() if path}


# Properties of one kind of client, by the beginning of their names; the other kind logs a warning.
_OF_CONSUMERS = (
    "auto.offset.",
    "check.crcs",
    "fetch.",
    "group.",
    "heartbeat.",
    "isolation.",
    "max.partition.fetch.",
    "max.poll.",
    "partition.assignment.",
    "queued.",
    "session.",
)
_OF_PRODUCERS = (
    "batch.",
    "compression.",
    "delivery.",
    "linger.",
    "message.send.",
    "message.timeout.",
    "partitioner",
    "queue.buffering.",
    "request.timeout.",
    "retries",
    "retry.backoff.",
    "sticky.partitioning.",
)


def consumer_options(settings: Cluster) -> Properties:
    """Return the options of the settings that apply to consumers."""
    return _without(settings.options, _OF_PRODUCERS)


def producer_options(settings: Cluster) -> Properties:
    """Return the options of the settings that apply to producers."""
    return _without(settings.options, _OF_CONSUMERS)


def _without(options: Mapping[str, str], beginnings: tuple[str, ...]) -> Properties:
    return {name: value for name, value in options.items() if not name.startswith(beginnings)}
