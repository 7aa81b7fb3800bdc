"""The producer of a slot's frames.

It never gives up a message and never reorders them: librdkafka retries without a time limit
(`message.timeout.ms = 0`), and a message that fails nevertheless ends the producer with a fatal
error before a later one can be stored (`enable.gapless.guarantee`). Then the replicator continues
with a new producer from the first frame without a report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from pixelfast.cluster.message import FramePlace, pack_headers
from pixelfast.cluster.topic import (
    TopicSettings,
    problems_of,
    read_topic_settings,
    replica_problems,
)
from pixelfast.config import Cluster
from pixelfast.kafka.connection import (
    Properties,
    connection_properties,
    producer_options,
    tls_problem,
)
from pixelfast.kafka.errors import ALL_BROKERS_DOWN, error_message
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["FrameProducer", "TopicUnusable", "Transport", "producer_properties"]

_TOPIC_TIMEOUT_S = 5.0
# The connection to a broker that stops without closing it is given up after this time, so that the
# new leaders of its partitions are looked up.
_SOCKET_TIMEOUT_MS = 6000
_REQUEST_TIMEOUT_MS = 5000
_MAX_BACKOFF_MS = 500


class TopicUnusable(Exception):
    """Nothing can be sent to the topic.

    It does not exist, its settings do not keep what is stored in it, no broker responds, or a file
    for TLS cannot be used.
    """


class Transport(Protocol):
    """The part of a producer that the replicator uses."""

    def produce(
        self,
        place: FramePlace,
        value: bytes,
        partition: int,
        received_ms: int,
        on_report: Callable[[KafkaError | None, object], None],
    ) -> None:
        """Queue a message.

        Raises:
            BufferError: the queue is full.
            KafkaException: the message can never be sent.
        """

    def poll(self) -> int:
        """Call the callbacks of reports that have arrived; return how many ran."""

    def look_up_partitions(self) -> int:
        """Return the number of the topic's partitions. Blocks.

        Raises:
            TopicUnusable: the topic does not exist, its settings are wrong, or no broker responds.
        """

    def close(self) -> None:
        """Stop sending and calling the callbacks of reports. Does not block."""


def producer_properties(settings: Cluster, max_message_bytes: int) -> Properties:
    """Return the properties of the producer, without its callbacks."""
    found: Properties = {
        "enable.idempotence": True,
        # librdkafka marks this property as experimental, but nothing replaces it. Without it, a
        # message that fails for good (no permission, too large) does not end the producer, and
        # messages after it, which may be in flight already, can be stored. If the replicator then
        # produced the failed frame again, delivery would drop it as a copy: it is not beyond the
        # last position of its slot. A version without the property rejects it by name.
        "enable.gapless.guarantee": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "compression.type": settings.compression,
        "message.max.bytes": max_message_bytes,
        "batch.size": max_message_bytes,
        "queue.buffering.max.messages": 0,  # the replicator limits its bytes
        "linger.ms": 0,  # a frame holds all events of a commit
        "socket.nagle.disable": True,  # its last TCP segment must not wait for an acknowledgement
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
        "request.timeout.ms": _REQUEST_TIMEOUT_MS,
        "retry.backoff.max.ms": _MAX_BACKOFF_MS,
        "log_level": 5,
    }
    return connection_properties(settings) | found | producer_options(settings)


class FrameProducer:
    """A producer of librdkafka that sends frames to the cluster's topic."""

    def __init__(
        self,
        settings: Cluster,
        max_message_bytes: int,
        on_fatal: Callable[[str], None],
        on_error: Callable[[str], None],
        on_statistics: Callable[[str], None] | None = None,
        *,
        topic_timeout_s: float = _TOPIC_TIMEOUT_S,
        read_settings: Callable[[Cluster], TopicSettings] = read_topic_settings,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Start connecting.

        Args:
            settings: the settings of `[cluster]`.
            max_message_bytes: the maximum size of a message.
            on_fatal: called by `poll` with the reason why nothing can be sent any more.
            on_error: called by `poll` with the last error of a connection, and by
                `look_up_partitions` if a partition has too few in-sync replicas.
            on_statistics: called by `poll` with the statistics of librdkafka.
            topic_timeout_s: maximum time to look up the topic.
            read_settings: returns the settings of the topic. Blocks.
            wall_s: the time since 1970.

        Raises:
            KafkaException: librdkafka does not accept a property.
            TopicUnusable: a file for TLS cannot be used.
        """
        from confluent_kafka import Producer

        if problem := tls_problem(settings):
            raise TopicUnusable(f"cluster.{problem}")

        self._settings = settings
        self._topic = settings.topic
        self._on_fatal, self._on_error = on_fatal, on_error
        self._topic_timeout_s = topic_timeout_s
        self._read_settings = read_settings
        self._wall_s = wall_s
        self._connection_error = ""
        callbacks: dict[str, Any] = {
            "error_cb": self._on_librdkafka_error,
            "logger": KafkaLogger(structlog.get_logger("cluster")),
        }
        if on_statistics is not None:
            callbacks["stats_cb"] = on_statistics
        self._producer: Producer | None = Producer(
            {**producer_properties(settings, max_message_bytes), **callbacks}
        )

    def produce(
        self,
        place: FramePlace,
        value: bytes,
        partition: int,
        received_ms: int,
        on_report: Callable[[KafkaError | None, object], None],
    ) -> None:
        assert self._producer is not None
        # Brokers reject a message from the future (`message.timestamp.after.max.ms`). Frames that
        # were received while the clock was ahead would stop replication until that time comes.
        timestamp_ms = min(received_ms, int(self._wall_s() * 1000))
        self._producer.produce(
            self._topic,
            value,
            partition=partition,
            on_delivery=on_report,
            timestamp=timestamp_ms,
            headers=[*pack_headers(place)],
        )

    def poll(self) -> int:
        from confluent_kafka import KafkaException

        if self._producer is None:
            return 0
        try:
            return self._producer.poll(0)
        except KafkaException as error:  # a fatal error, which is not passed to `error_cb`
            self._on_fatal(error_message(error.args[0]))
            return 0

    def look_up_partitions(self) -> int:
        from confluent_kafka import KafkaException

        producer = self._producer
        assert producer is not None
        try:
            topics = producer.list_topics(self._topic, timeout=self._topic_timeout_s).topics
            found = topics[self._topic]
            if found.error is not None:
                raise TopicUnusable(f"topic {self._topic}: {error_message(found.error)}")
            settings = self._read_settings(self._settings)
        except KafkaException as error:  # the error of a connection is more specific
            raise TopicUnusable(self._connection_error or error_message(error.args[0])) from error
        partitions = found.partitions
        replicas = {number: each.replicas for number, each in partitions.items()}
        problems = problems_of(settings, self._settings) + replica_problems(settings, replicas)
        if problems:
            raise TopicUnusable(f"topic {self._topic}: " + "; ".join(problems))
        in_sync = {number: each.isrs for number, each in partitions.items()}
        for problem in replica_problems(settings, in_sync, "in-sync replica"):  # they may return
            self._on_error(f"topic {self._topic}: {problem}")
        return len(partitions)

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(blocking=False)
            # Dropping the last reference waits for threads that may be connecting.
            ending = [producer]
            del producer
            threading.Thread(target=ending.clear, name="kafka-end", daemon=True).start()

    def _on_librdkafka_error(self, error: KafkaError) -> None:
        if error.name() != ALL_BROKERS_DOWN:
            self._connection_error = error_message(error)
            self._on_error(self._connection_error)
