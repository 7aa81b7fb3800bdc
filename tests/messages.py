"""Read all messages of a Kafka topic."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as _Received

__all__ = ["QUIET", "Message", "read_messages"]

_BOUND_S = 30.0
QUIET = logging.getLogger("tests.kafka")  # librdkafka logs lost connections of a killed broker
QUIET.setLevel(logging.CRITICAL)
# A broker that has just started does not lead its partitions yet.
_NOT_YET = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)


class Message(NamedTuple):
    """A message as a consumer sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str | bytes | None]
    timestamp_ms: int


def read_messages(brokers: str, topic: str) -> list[Message]:
    """Return all messages of a topic, by partition and in order; `brokers` is `HOST:PORT,…`.

    Raises:
        KafkaException: the brokers responded with an error, or not within 30 s.
    """
    until_s = time.monotonic() + _BOUND_S
    while True:
        try:
            return _read_once(brokers, topic)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() >= until_s:
                raise
        time.sleep(0.05)  # a broker does not announce that it leads its partitions


def _read_once(brokers: str, topic: str) -> list[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "reconnect.backoff.max.ms": 500,
            "group.id": "tests",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,  # a request at the end of a partition delays the next one
            "logger": QUIET,
        }
    )
    try:
        known = consumer.list_topics(topic, timeout=_BOUND_S).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        left = set(known.partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        found: list[Message] = []
        while left:
            received = consumer.poll(_BOUND_S)
            assert received is not None, f"{len(found)} messages of {topic} were read"
            error = received.error()
            if error is None:
                found.append(_message(received))
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(received.partition())
            else:
                raise KafkaException(error)
    finally:
        consumer.close()
    return sorted(found, key=lambda each: each.partition)


def _message(received: _Received) -> Message:
    return Message(
        received.topic() or "",
        received.partition() or 0,
        received.offset() or 0,
        received.key(),
        received.value() or b"",
        dict(received.headers() or ()),
        received.timestamp()[1],
    )
