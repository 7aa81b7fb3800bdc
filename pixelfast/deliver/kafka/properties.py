"""From the settings of a Kafka destination to properties of librdkafka.

Source: librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pixelfast.config import Destination, KafkaDestination
from pixelfast.errors import ConfigError

__all__ = ["DEFAULT_SET_BYTES", "STATISTICS_S", "check_properties", "properties", "set_bytes"]

STATISTICS_S = 5.0
DEFAULT_SET_BYTES = 1_000_000  # librdkafka's default of message.max.bytes
_LINGER_MS = 5  # the messages of a batch are produced at once, so that longer waits gain nothing
# How long librdkafka looks for a topic that the brokers do not know, because it may be new.
_NEW_TOPIC_S = 5.0
_MAX_RECONNECT_S = 2.0
_QUEUED_BATCHES = 2  # the queue also holds headers


def set_bytes(settings: KafkaDestination) -> int:
    """Return the maximum size of a message set, the unit in which brokers store messages."""
    try:
        return int(settings.options.get("message.max.bytes", DEFAULT_SET_BYTES))
    except ValueError:
        return DEFAULT_SET_BYTES  # librdkafka rejects it


def properties(settings: KafkaDestination, max_set_bytes: int) -> dict[str, str | int | bool]:
    """Return the properties of a producer, without its callbacks.

    The settings make sure that `options` has none of the first ones.
    """
    queue_bytes = _QUEUED_BATCHES * settings.max_bytes * settings.concurrency
    found: dict[str, str | int | bool] = {
        "bootstrap.servers": ",".join(settings.brokers),
        "security.protocol": settings.security,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": settings.compression,
        "message.timeout.ms": int(settings.timeout_s * 1000),
        "socket.connection.setup.timeout.ms": int(settings.connect_timeout_s * 1000),
        "queue.buffering.max.messages": 0,  # only its bytes are limited
        "queue.buffering.max.kbytes": queue_bytes // 1024,
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
    found |= {name: path for name, path in files.items() if path}
    defaults: dict[str, str | int | bool] = {
        "client.id": "pixelfast",
        "linger.ms": _LINGER_MS,
        "partitioner": "murmur2_random",  # that of the Java client
        "reconnect.backoff.max.ms": int(_MAX_RECONNECT_S * 1000),
        "topic.metadata.propagation.max.ms": int(_NEW_TOPIC_S * 1000),
        "batch.size": max_set_bytes,
    }
    return defaults | found | settings.options


def check_properties(
    destinations: Iterable[Destination], *, without_security: bool = False
) -> Iterator[ConfigError]:
    """Yield what librdkafka says about the properties of Kafka destinations that it rejects.

    `without_security` leaves out passwords and the files for TLS, which this machine may lack.
    Only `pixelfast check` calls this function, because librdkafka needs memory and threads. A
    destination with such an error is held.
    """
    for each in destinations:
        if isinstance(each, KafkaDestination) and (reason := _rejection(each, without_security)):
            part = ".options" if each.options else ""
            yield ConfigError(f"destinations[{each.name}]{part}", None, reason)


def _rejection(settings: KafkaDestination, without_security: bool) -> str:
    from confluent_kafka import KafkaException, Producer

    chosen: dict[str, object] = {**properties(settings, set_bytes(settings)), "logger": _Silent()}
    del chosen["bootstrap.servers"]  # without brokers, it connects to none
    if without_security:
        for name in chosen.keys() - settings.options.keys():
            if name.startswith(("security.", "sasl.", "ssl.")):
                del chosen[name]
    try:
        Producer(chosen)
    except KafkaException as error:
        words: str = error.args[0].str()
        return words.strip().removeprefix("Failed to create producer: ")
    except (AttributeError, TypeError, ValueError) as error:  # of properties for programs
        return str(error)
    return ""


class _Silent:
    """A logger that logs nothing."""

    def log(self, *_: object) -> None:
        pass
