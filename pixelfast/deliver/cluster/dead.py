"""Dead letters in the topic `<topic>-dead`, which all machines share.

Each message is a dead letter. Its key is the destination, the batch and the position in the batch,
so that a dead letter that is written again replaces itself; the topic is compacted. A message
without a value drops one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from pixelfast.config import Cluster
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.bundles import Bundle, DeadLetter, merged
from pixelfast.deliver.dead import SourceDeadLetters
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.timing import DeliveryClock
from pixelfast.errors import DestinationError
from pixelfast.kafka.connection import (
    Properties,
    connection_properties,
    consumer_options,
    producer_options,
)
from pixelfast.kafka.errors import PARTITION_END, timed_out
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["DeadLetterTopic", "DeadLetterWriter", "dead_topic"]

_REPORTS_S = 30.0
_RESPONSE_S = 10.0
_POLL_S = 0.1
_BUNDLE_BYTES = 2**20


def dead_topic(cluster: Cluster) -> str:
    """Return the name of the topic of dead letters."""
    return f"{cluster.topic}-dead"


class _Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The value of a message."""

    destination: str
    batch: str
    number: int
    event: msgspec.Raw
    source: str
    status: int
    reason: str
    attempts: int
    died_ms: int
    response: bytes = b""


_DECODER = msgspec.json.Decoder(_Record)


def _key(destination: str, batch: str, number: int) -> bytes:
    return f"{destination}/{batch}/{number}".encode()


class DeadLetterTopic:
    """The topic of dead letters. Every method blocks; several threads may write."""

    def __init__(self, cluster: Cluster, log: Any) -> None:
        self._cluster = cluster
        self._name = dead_topic(cluster)
        self._log = log
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def create(self) -> None:
        """Create the topic, unless it exists; it is as durable as the events' topic.

        Raises:
            KafkaException: the brokers do not respond, or do not allow it.
        """
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
            AdminClient,
            NewTopic,
        )

        admin = AdminClient(
            {
                **connection_properties(self._cluster),
                **producer_options(self._cluster),
                "statistics.interval.ms": 0,
            },
            logger=KafkaLogger(self._log),
        )
        topics = admin.list_topics(timeout=_RESPONSE_S).topics
        if self._name in topics or self._cluster.topic not in topics:
            return
        partitions = topics[self._cluster.topic].partitions.values()
        replicas = min((len(each.replicas) for each in partitions), default=1)
        new = NewTopic(
            self._name,
            num_partitions=1,  # so that an offset identifies a dead letter
            replication_factor=replicas,
            config={
                "cleanup.policy": "compact",
                "min.insync.replicas": str(min(replicas, self._cluster.min_insync)),
            },
        )
        try:
            admin.create_topics([new], request_timeout=_RESPONSE_S)[self._name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def write(self, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store messages, given by key and value; return when the brokers have all of them.

        Raises:
            DestinationError: some are not stored.
        """
        failed: list[KafkaError] = []
        left = 0

        def on_report(error: KafkaError | None, _message: object) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                failed.append(error)

        with self._lock:
            producer = self._open()
            for key, value in messages:
                left += 1
                while True:
                    try:
                        producer.produce(self._name, value, key, on_delivery=on_report)
                        break
                    except BufferError:
                        producer.poll(_POLL_S)
            until_s = time.monotonic() + _REPORTS_S + _RESPONSE_S
            while left and time.monotonic() < until_s:
                producer.poll(_POLL_S)
            if failed or left:
                self._producer = None  # after a fatal error, it stays unusable
                reason = failed[0].str() if failed else "no report"
                raise DestinationError(f"topic {self._name}: {reason}")

    def _open(self) -> Producer:
        from confluent_kafka import Producer

        if self._producer is None:
            properties: Properties = {
                **connection_properties(self._cluster),
                **producer_options(self._cluster),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": self._cluster.compression,
                "message.timeout.ms": int(_REPORTS_S * 1000),
                "statistics.interval.ms": 0,
            }
            self._producer = Producer({**properties}, logger=KafkaLogger(self._log))
        return self._producer

    def read(self, destination: str) -> list[DeadLetter]:
        """Return the dead letters of a destination, the oldest first. Their ids are offsets.

        Raises:
            KafkaException: the brokers do not respond.
        """
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        consumer = Consumer(
            {
                **connection_properties(self._cluster),
                **consumer_options(self._cluster),
                "group.id": "pixelfast.dead",  # is required, but not joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "statistics.interval.ms": 0,
            },
            logger=KafkaLogger(self._log),
        )
        found: dict[bytes, DeadLetter] = {}
        try:
            consumer.assign([TopicPartition(self._name, 0, 0)])
            until_s = time.monotonic() + _RESPONSE_S
            while time.monotonic() < until_s:
                for each in consumer.consume(1000, _POLL_S):
                    until_s = time.monotonic() + _RESPONSE_S
                    error = each.error()
                    if error is not None and error.name() == PARTITION_END:
                        return sorted(found.values())
                    if error is not None:
                        raise KafkaException(error)
                    key, value = each.key() or b"", each.value()
                    found.pop(key, None)
                    if value and key.startswith(f"{destination}/".encode()):
                        found[key] = _letter(each.offset() or 0, value)
            raise timed_out()
        finally:
            consumer.close()

    def drop(self, destination: str, letters: Iterable[DeadLetter]) -> None:
        """Drop dead letters.

        Raises:
            DestinationError: some are not dropped.
        """
        self.write((_key(destination, each.batch, each.number), None) for each in letters)


def _letter(offset: int, value: bytes) -> DeadLetter:
    record = _DECODER.decode(value)
    return DeadLetter(
        offset,
        record.batch,
        record.number,
        bytes(record.event),
        record.status,
        record.reason,
        record.response,
        record.attempts,
        record.died_ms,
        0,
        record.source,
    )


class DeadLetterWriter:
    """Writes the dead letters of one runner to their topic, before their batches are settled.

    The retention of the topic limits them. Replay is not supported.
    """

    def __init__(self, topic: DeadLetterTopic, destination: str, clock: DeliveryClock) -> None:
        self.size_bytes = 0
        self.max_bytes = 2**62
        self.by_source: dict[str, SourceDeadLetters] = {}
        self._topic = topic
        self._destination = destination
        self._clock = clock

    @property
    def has_any(self) -> bool:
        """Whether dead letters may have to be replayed."""
        return False

    def write(
        self,
        added: list[Bundle],
        removed: list[int],
        rejected_again: dict[int, Rejected | Retry],
    ) -> None:
        assert not removed, "there are no replays"
        assert not rejected_again, "there are no replays"
        if added:
            self._topic.write(self._messages(added))

    def _messages(self, added: list[Bundle]) -> Iterator[tuple[bytes, bytes]]:
        now_ms = round(self._clock.wall_s() * 1000)
        for bundle in merged(added):
            for row in bundle.rows(1, now_ms, _BUNDLE_BYTES):
                for each in row.to_letters():
                    record = _Record(
                        destination=self._destination,
                        batch=each.batch,
                        number=each.number,
                        event=msgspec.Raw(each.event),
                        source=each.source,
                        status=each.status,
                        reason=each.reason,
                        attempts=each.attempts,
                        died_ms=each.died_ms,
                        response=each.response,
                    )
                    key = _key(self._destination, each.batch, each.number)
                    yield key, msgspec.json.encode(record)

    def tend(self, limits: BatchLimits | None, *, is_due: bool) -> list[DeadLetter]:
        """Return no dead letters to replay."""
        del limits, is_due
        return []

    def resume(self, planned: list[list[int]]) -> None:
        """Do nothing: no replay is planned."""

    def read_replayed(self, ids: list[int]) -> list[DeadLetter] | None:
        del ids
        return None

    def existing(self, ids: list[int]) -> int:
        del ids
        return 0

    def close(self) -> None:
        """Do nothing: the topic belongs to all runners."""
