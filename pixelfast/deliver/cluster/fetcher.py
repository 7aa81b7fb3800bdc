"""Reads messages of the cluster's topic again, such as those of planned batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pixelfast.config import Cluster
from pixelfast.deliver.cluster.properties import fetcher_properties
from pixelfast.kafka.errors import PARTITION_END, timed_out
from pixelfast.kafka.logger import KafkaLogger

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

__all__ = ["Fetcher"]

_MESSAGES = 1000  # of one call
_CONSUME_S = 0.02
_RESPONSE_S = 10.0  # of the brokers, to one request


class Fetcher:
    """Read messages of the cluster's topic from any offset, for all runners of a destination."""

    def __init__(self, cluster: Cluster, group: str, log: Any) -> None:
        self._cluster = cluster
        self._properties = fetcher_properties(cluster, group)
        self._log = log
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._at: tuple[int, int] | None = None  # the partition and offset that it reads next

    def fetch(self, partition: int, offset: int) -> Sequence[Message]:
        """Return the next messages from an offset on; empty at the end. Blocks.

        Raises:
            KafkaException: the brokers do not respond.
        """
        from confluent_kafka import KafkaException, TopicPartition

        with self._lock:
            consumer = self._open()
            if self._at != (partition, offset):
                consumer.assign([TopicPartition(self._cluster.topic, partition, offset)])
            self._at = None
            until_s = time.monotonic() + _RESPONSE_S
            while time.monotonic() < until_s:
                found: list[Message] = []
                is_at_end = False
                for each in consumer.consume(_MESSAGES, _CONSUME_S):
                    error = each.error()
                    if error is None:
                        found.append(each)
                    elif error.name() == PARTITION_END:
                        is_at_end = True
                    elif not error.retriable():
                        raise KafkaException(error)
                if found and not is_at_end:  # librdkafka reports the end only once
                    self._at = partition, (found[-1].offset() or 0) + 1
                if found or is_at_end:
                    return found
            raise timed_out()

    def end(self, partition: int) -> int:
        """Return the offset that the next message of a partition will have. Blocks.

        Raises:
            KafkaException: the brokers do not respond.
        """
        from confluent_kafka import TopicPartition

        with self._lock:
            place = TopicPartition(self._cluster.topic, partition)
            return int(self._open().get_watermark_offsets(place, _RESPONSE_S)[1])

    def _open(self) -> Consumer:
        from confluent_kafka import Consumer

        if self._consumer is None:
            self._consumer = Consumer({**self._properties}, logger=KafkaLogger(self._log))
        return self._consumer

    def close(self) -> None:
        """Close the connections. Blocks."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
