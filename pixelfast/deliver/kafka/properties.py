"""The properties of librdkafka for the settings of a Kafka destination.

Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pixelfast.config import Cluster, Destination, KafkaDestination
from pixelfast.errors import ConfigError
from pixelfast.kafka.connection import Properties, connection_properties

__all__ = ["DEFAULT_SET_BYTES", "check_properties", "properties", "set_bytes"]

DEFAULT_SET_BYTES = 1_000_000  # librdkafka's default of message.max.bytes
_LINGER_MS = 5  # the messages of a batch are produced at once, so that longer waits gain nothing
# How long librdkafka looks for a topic that the brokers do not know, because it may be new.
_NEW_TOPIC_S = 5.0
_QUEUED_BATCHES = 2  # the queue also holds headers


def set_bytes(settings: KafkaDestination) -> int:
    """Return the maximum size of a message set, the unit in which brokers store messages."""
    try:
        return int(settings.options.get("message.max.bytes", DEFAULT_SET_BYTES))
    except ValueError:
        return DEFAULT_SET_BYTES  # librdkafka rejects it


def properties(settings: KafkaDestination, max_set_bytes: int) -> Properties:
    """Return the properties of a producer, without its callbacks.

    The check of the settings rejects `options` that would weaken the guarantees.
    """
    queue_bytes = _QUEUED_BATCHES * settings.max_bytes * settings.concurrency
    found: Properties = {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": settings.compression,
        "message.timeout.ms": int(settings.timeout_s * 1000),
        "queue.buffering.max.messages": 0,  # only its bytes are limited
        "queue.buffering.max.kbytes": queue_bytes // 1024,
        "linger.ms": _LINGER_MS,
        "partitioner": "murmur2_random",  # that of the Java client
        "topic.metadata.propagation.max.ms": int(_NEW_TOPIC_S * 1000),
        "batch.size": max_set_bytes,
    }
    return connection_properties(settings) | found | settings.options


def check_properties(
    destinations: Iterable[Destination],
    cluster: Cluster | None = None,
    *,
    without_security: bool = False,
) -> Iterator[ConfigError]:
    """Yield what librdkafka says about the properties that it rejects.

    These are properties of Kafka destinations and of `[cluster]`. `without_security` leaves out
    passwords and the files for TLS, which this machine may lack. Only `pixelfast check` calls this
    function, because librdkafka needs memory and threads. A destination with such an error is held.
    """
    tables: list[tuple[str, KafkaDestination | Cluster]] = [
        (f"destinations[{each.name}]", each)
        for each in destinations
        if isinstance(each, KafkaDestination)
    ]
    if cluster is not None:
        tables.append(("cluster", cluster))
    for path, settings in tables:
        if isinstance(settings, KafkaDestination):
            chosen = properties(settings, set_bytes(settings))
        else:
            chosen = {**connection_properties(settings), **settings.options}
        if without_security:
            _drop_security(chosen, settings)
        if reason := _rejection(chosen):
            yield ConfigError(path + (".options" if settings.options else ""), None, reason)


def _drop_security(chosen: Properties, settings: KafkaDestination | Cluster) -> None:
    for name in chosen.keys() - settings.options.keys():
        if name.startswith(("security.", "sasl.", "ssl.")):
            del chosen[name]


def _rejection(chosen: Properties) -> str:
    from confluent_kafka import KafkaException, Producer

    # Without the addresses of brokers, the producer opens no connections.
    without_brokers = {name: each for name, each in chosen.items() if name != "bootstrap.servers"}
    try:
        Producer({**without_brokers, "logger": _Silent()})
    except KafkaException as error:
        words: str = error.args[0].str()
        return words.strip().removeprefix("Failed to create producer: ")
    except (AttributeError, TypeError, ValueError) as error:  # of program-only properties
        return str(error)
    return ""


class _Silent:
    """A logger that logs nothing."""

    def log(self, *_: object) -> None:
        pass
