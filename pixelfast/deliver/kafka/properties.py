"""The properties of librdkafka for the settings of a Kafka destination.

Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from pixelfast.config import KafkaDestination
from pixelfast.kafka.connection import Properties, connection_properties

__all__ = ["DEFAULT_SET_BYTES", "properties", "set_bytes"]

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
