"""The committed offsets of a consumer group: those of earlier owners, or a new destination's start.

All methods block, and repeat their requests until the brokers respond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pixelfast.deliver.cluster.checkpoint import (
    Checkpoint,
    CheckpointError,
    Place,
    decode,
    encode,
    restarted,
    topic_mark,
)
from pixelfast.kafka.connection import Properties

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

__all__ = ["GroupOffsets"]

_RESPONSE_S = 10.0  # of the brokers, to one request
_REGISTERED_S = 10.0
_RETRY_S = 1.0
_NO_OFFSET = -1001  # OFFSET_INVALID of librdkafka


class GroupOffsets:
    """Look up where a consumer of a group begins to read its partitions."""

    def __init__(
        self,
        topic: str,
        topic_id: str,
        start: str,
        start_ms: int,
        properties: Properties,
        is_stopping: threading.Event,
        on_error: Callable[[str], None],
        log: Any,
    ) -> None:
        """Prepare lookups; `start` and `start_ms` are those of a new destination, see `Group`.

        `properties` are those of a consumer of the group. When `is_stopping` is set, a request is
        not repeated. `on_error` is called with the reason why it must be.
        """
        self._topic = topic
        self._topic_mark = topic_mark(topic_id)
        self._start, self._start_ms = start, start_ms
        self._properties = properties
        self._is_stopping = is_stopping
        self._on_error = on_error
        self._log = log
        self._looking_up: Consumer | None = None

    def checkpoints(self, consumer: Consumer, partitions: list[int]) -> dict[int, Checkpoint]:
        """Return the last commit of each partition; of a new destination, commit its start."""
        known = self._committed(consumer, partitions)
        missing = [number for number in partitions if number not in known]
        if missing:
            known |= self._registered(consumer, missing)
        return {number: self._checkpoint(number, *known[number]) for number in partitions}

    def _checkpoint(self, partition: int, offset: int, metadata: str) -> Checkpoint:
        """Return the checkpoint of a commit, or one at the first message if it is not valid.

        It is not valid if the topic was created again, or if the brokers have lost messages.
        """
        checkpoint = Checkpoint(Place(offset), topic=self._topic_mark)
        if metadata:
            try:
                checkpoint = decode(metadata, offset)
            except CheckpointError as error:
                self._log.error("checkpoint_damaged", partition=partition, error=str(error))
        low, high = self._bounds(partition)
        if checkpoint.topic == self._topic_mark and checkpoint.after.offset <= high:
            return checkpoint
        self._log.warning("partition_restarted", partition=partition, offset=offset, first=low)
        return restarted(checkpoint, low, self._topic_mark)

    def _committed(
        self, consumer: Consumer, partitions: Sequence[int]
    ) -> dict[int, tuple[int, str]]:
        places = [self._place(number) for number in partitions]
        found = self._insist(lambda: consumer.committed(places, _RESPONSE_S))
        return {
            each.partition: (each.offset, each.metadata or "") for each in found if each.offset >= 0
        }

    def _registered(self, consumer: Consumer, missing: list[int]) -> dict[int, tuple[int, str]]:
        """Return the start of partitions without a commit.

        If no partition has one, the destination is new. The owner of partition 0 then commits its
        start on every partition, and other consumers wait for that. Partitions that were added to
        the topic later start at their first event.
        """
        topics = self._insist(lambda: self._lookups().list_topics(self._topic, _RESPONSE_S)).topics
        every = sorted(topics[self._topic].partitions)
        if 0 in missing and not self._committed(consumer, every):
            self._register(consumer, every)
        until_s = time.monotonic() + _REGISTERED_S
        while not self._committed(consumer, [0]) and time.monotonic() < until_s:
            self._is_stopping.wait(_RETRY_S / 10)
        known = self._committed(consumer, missing)
        for number in missing:
            if number not in known:
                known[number] = self._watermark(number, "earliest"), ""
        return known

    def _register(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        """Commit the start of a new destination.

        The brokers may also have deleted the commits of an old one. The messages that are skipped
        may then include events that it has not received.
        """
        offsets = {n: self._watermark(n, self._start) for n in partitions}
        skipped = sum(offset - self._bounds(n)[0] for n, offset in offsets.items())
        starts = [self._place(n, *self._commit_of(offset)) for n, offset in offsets.items()]
        self._insist(lambda: consumer.commit(offsets=starts, asynchronous=False))
        if skipped > 0:
            self._log.warning("destination_registered", start=self._start, skipped_messages=skipped)
        else:
            self._log.info("destination_registered", start=self._start, skipped_messages=0)

    def _lookups(self) -> Consumer:
        """Return a consumer for requests about the topic.

        If the callbacks of a rebalance made them with the member of the group, confluent-kafka
        would abort the process as soon as librdkafka called another callback in the same call.
        """
        from confluent_kafka import Consumer

        if self._looking_up is None:
            self._looking_up = Consumer({**self._properties, "log_level": 0})
        return self._looking_up

    def close(self) -> None:
        """Close the connections of lookups. Blocks."""
        if self._looking_up is not None:
            self._looking_up.close()
            self._looking_up = None

    def _place(
        self, partition: int, offset: int = _NO_OFFSET, metadata: str | None = None
    ) -> TopicPartition:
        from confluent_kafka import TopicPartition

        if metadata is None:
            return TopicPartition(self._topic, partition, offset)
        return TopicPartition(self._topic, partition, offset, metadata)

    def _commit_of(self, offset: int) -> tuple[int, str]:
        return offset, encode(Checkpoint(Place(offset), topic=self._topic_mark))

    def _bounds(self, partition: int) -> tuple[int, int]:
        """Return the offset of the first message of a partition, and that after the last one."""
        place = self._place(partition)
        low, high = self._insist(lambda: self._lookups().get_watermark_offsets(place, _RESPONSE_S))
        return int(low), int(high)

    def _watermark(self, partition: int, start: str) -> int:
        low, high = self._bounds(partition)
        if start == "earliest":
            return low
        # Looked up after the end of the log, so that no event is between the two.
        since = self._place(partition, self._start_ms)
        (found,) = self._insist(lambda: self._lookups().offsets_for_times([since], _RESPONSE_S))
        return int(found.offset if 0 <= found.offset < high else high)

    def _insist(self, request: Callable[[], Any]) -> Any:
        """Repeat a request until the brokers respond."""
        from confluent_kafka import KafkaException

        while True:
            try:
                return request()
            except KafkaException as error:
                self._on_error(error.args[0].str())
                if self._is_stopping.wait(_RETRY_S):
                    raise
