"""The topic `<topic>-dead`, where all machines of a cluster keep dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pixelfast.config import Cluster
from pixelfast.config.brokers import DEAD_TOPIC_SUFFIX
from pixelfast.deliver.bundles import DeadLetter
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.dead_records import DeadRecord, parse_record
from pixelfast.deliver.cluster.properties import (
    DEAD_TIMEOUT_S,
    FETCH_WAIT_MS,
    dead_consumer_properties,
    dead_producer_properties,
)
from pixelfast.deliver.cluster.reasons import LoggedReasons
from pixelfast.deliver.timing import Timings
from pixelfast.errors import DestinationError
from pixelfast.kafka.connection import admin_properties
from pixelfast.kafka.errors import PARTITION_END, error_message, hides_settings
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer

__all__ = ["DeadLetterTopic", "dead_topic", "dead_topic_problems"]

_RESPONSE_S = 10.0
_POLL_S = 0.1
_MESSAGES = 1000
_RETRY_S = 1.0
_DENIED = frozenset({"CLUSTER_AUTHORIZATION_FAILED", "TOPIC_AUTHORIZATION_FAILED"})


def dead_topic(cluster: Cluster) -> str:
    """Return the name of the topic of dead letters."""
    return cluster.topic + DEAD_TOPIC_SUFFIX


def dead_topic_problems(
    found: Mapping[str, str | None], partitions: int, cluster: Cluster
) -> list[str]:
    """Return why a topic with these settings would lose or confuse dead letters.

    >>> cluster = Cluster(brokers=("kafka-1:9092",))
    >>> dead_topic_problems({"cleanup.policy": "compact", "min.insync.replicas": "2"}, 1, cluster)
    []
    >>> for each in dead_topic_problems({"cleanup.policy": "delete"}, 12, cluster):
    ...     print(each)
    cleanup.policy is delete; expected compact
    it has 12 partitions; expected 1
    """
    problems = []
    policy = found.get("cleanup.policy")
    if policy not in (None, "compact"):
        problems.append(f"cleanup.policy is {policy}; expected compact")
    insync = found.get("min.insync.replicas")
    if insync is not None and int(insync) < cluster.min_insync:
        problems.append(
            f"min.insync.replicas is {insync}; expected at least {cluster.min_insync}"
            " (cluster.min_insync)"
        )
    if partitions != 1:
        problems.append(f"it has {partitions} partitions; expected 1")
    return problems


class DeadLetterTopic:
    """The topic of dead letters. All methods block and are thread-safe."""

    def __init__(self, cluster: Cluster, log: Any) -> None:
        self._cluster = cluster
        self._name = dead_topic(cluster)
        self._log = log
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    # --- the topic itself --------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the topic as durable as the events' topic, unless it exists, and check it.

        Raises:
            KafkaException: the brokers do not respond.
            DestinationError: the topic does not exist or would lose dead letters.
        """
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({**admin_properties(self._cluster)}, logger=KafkaLogger(self._log))
        topics = admin.list_topics(timeout=_RESPONSE_S).topics
        if self._name in topics:
            problems = dead_topic_problems(
                self._settings(admin), len(topics[self._name].partitions), self._cluster
            )
            if problems:
                raise DestinationError(f"topic {self._name}: {'; '.join(problems)}")
        elif self._cluster.topic in topics:
            partitions = topics[self._cluster.topic].partitions.values()
            self._create(admin, min((len(each.replicas) for each in partitions), default=1))

    def _settings(self, admin: Any) -> dict[str, str | None]:
        """Return the settings of a topic; empty if the brokers hide them."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
            RESOURCE_TOPIC,
            ConfigResource,
        )

        resource = ConfigResource(RESOURCE_TOPIC, self._name)
        try:
            future = admin.describe_configs([resource], request_timeout=_RESPONSE_S)[resource]
            found = future.result(2 * _RESPONSE_S)
        except KafkaException as error:
            if not hides_settings(error.args[0]):
                raise
            self._log.warning(
                "topic_not_checked", topic=self._name, error=error_message(error.args[0])
            )
            return {}
        return {name: entry.value for name, entry in found.items()}

    def _create(self, admin: Any, replicas: int) -> None:
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import (  # type: ignore[attr-defined] # it has no __all__
            NewTopic,
        )

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
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            reason = error_message(error.args[0])
            problem = f"cannot be created: {reason}"
            remedy = "create it with 1 partition and cleanup.policy=compact"
            if error.args[0].name() in _DENIED:  # brokers do not list a topic without permission
                problem = f"does not exist, or this user may not read it; {problem}"
                remedy += ", or permit Read and Write on it"
            raise DestinationError(f"topic {self._name} {problem}; {remedy}") from error

    # --- writing -----------------------------------------------------------------------------

    def write(self, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store messages, given by key and value; return when the brokers have all of them.

        Raises:
            DestinationError: some are not stored.
        """
        from confluent_kafka import KafkaException

        failed: list[KafkaError] = []
        left = 0

        def on_report(error: KafkaError | None, _message: object) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                failed.append(error)

        with self._lock:
            producer = self._open()
            try:
                for key, value in messages:
                    left += 1
                    while True:
                        try:
                            producer.produce(self._name, value, key, on_delivery=on_report)
                            break
                        except BufferError:
                            producer.poll(_POLL_S)
                until_s = time.monotonic() + DEAD_TIMEOUT_S + _RESPONSE_S
                while left and time.monotonic() < until_s:
                    producer.poll(_POLL_S)
            except KafkaException as error:  # a fatal error, which `poll` raises
                failed.append(error.args[0])
            if failed or left:
                self._producer = None  # after a fatal error, it stays unusable
                reason = error_message(failed[0]) if failed else "no report"
                raise DestinationError(f"topic {self._name}: {reason}")

    def _open(self) -> Producer:
        from confluent_kafka import Producer

        if self._producer is None:
            properties = dead_producer_properties(self._cluster)
            self._producer = Producer({**properties}, logger=KafkaLogger(self._log))
        return self._producer

    # --- reading -----------------------------------------------------------------------------

    def read(self, destination: str | None = None) -> list[DeadRecord]:
        """Return the dead letters of a destination, or of all, the oldest first.

        Raises:
            DestinationError: the brokers do not respond.
        """
        found: dict[bytes, DeadRecord] = {}
        for message in self._scan(0):
            key, value = message.key() or b"", message.value()
            record = self._parsed(message) if value else None
            if record is None:
                found.pop(key, None)
            elif destination in (None, record.destination):
                found[key] = record
        return sorted(found.values())

    def read_at(self, offsets: Iterable[int]) -> list[DeadLetter]:
        """Return the dead letters whose messages have these offsets, as far as they still exist.

        Raises:
            DestinationError: the brokers do not respond.
        """
        wanted = set(offsets)
        if not wanted:
            return []
        messages = self._scan(min(wanted), max(wanted))
        records = (self._parsed(each) for each in messages if each.offset() in wanted)
        return [each.letter for each in records if each is not None]

    def _parsed(self, message: Message) -> DeadRecord | None:
        try:
            return parse_record(message.key() or b"", message.value() or b"", message.offset() or 0)
        except ValueError:
            return None  # the index logs it

    def _scan(self, first: int, last: int | None = None) -> Iterator[Message]:
        """Yield the messages from one offset to another, or to the end."""
        from confluent_kafka import KafkaException

        # librdkafka reports the end of the topic after a fetch that has waited for more messages.
        consumer = self._consumer(first, {"fetch.wait.max.ms": FETCH_WAIT_MS})
        try:
            until_s = time.monotonic() + _RESPONSE_S
            while time.monotonic() < until_s:
                for each in consumer.consume(_MESSAGES, _POLL_S / 2):
                    until_s = time.monotonic() + _RESPONSE_S
                    error = each.error()
                    if error is not None and error.name() == PARTITION_END:
                        return
                    if error is not None:
                        raise DestinationError(f"topic {self._name}: {error_message(error)}")
                    offset = each.offset() or 0
                    if last is None or offset <= last:
                        yield each
                    if last is not None and offset >= last:
                        return
            raise DestinationError(f"topic {self._name}: the brokers do not respond")
        except KafkaException as error:
            raise DestinationError(f"topic {self._name}: {error_message(error.args[0])}") from error
        finally:
            consumer.close()

    def _consumer(self, offset: int, properties: Mapping[str, int] | None = None) -> Consumer:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(
            {**dead_consumer_properties(self._cluster), **(properties or {})},
            logger=KafkaLogger(self._log),
        )
        consumer.assign([TopicPartition(self._name, 0, offset)])
        return consumer

    def follow(self, index: DeadLetterIndex, is_stopping: threading.Event) -> None:
        """Add all messages to the index, and then new ones, until `is_stopping` is set."""
        from confluent_kafka import KafkaException

        logged = LoggedReasons(Timings().log_again_s)
        while not is_stopping.is_set():
            try:
                self._follow(index, is_stopping)
            except KafkaException as error:  # also of options that librdkafka does not accept
                reason = error_message(error.args[0])
                if logged.is_due(reason):
                    self._log.warning("dead_letters_unreadable", topic=self._name, error=reason)
                is_stopping.wait(_RETRY_S)

    def _follow(self, index: DeadLetterIndex, is_stopping: threading.Event) -> None:
        from confluent_kafka import KafkaException

        consumer = self._consumer(0)
        try:
            while not is_stopping.is_set():
                for each in consumer.consume(_MESSAGES, _POLL_S):
                    error = each.error()
                    if error is None:
                        index.add(each.offset() or 0, each.key() or b"", each.value())
                    elif error.name() == PARTITION_END:
                        index.is_complete = True
                    elif not error.retriable():
                        raise KafkaException(error)
        finally:
            consumer.close()
