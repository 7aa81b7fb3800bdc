"""The consumer of one destination in its consumer group.

The consumer has a thread, because its callbacks block: librdkafka calls them inside `consume` and
continues with a rebalance when they return. Until then, the consumer still owns the partitions that
are revoked, so that their runners can commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from pixelfast.config import Cluster
from pixelfast.deliver.cluster.checkpoint import Checkpoint
from pixelfast.deliver.cluster.log import TopicMessage
from pixelfast.deliver.cluster.offsets import GroupOffsets
from pixelfast.deliver.cluster.properties import group_properties
from pixelfast.deliver.cluster.reasons import LoggedReasons
from pixelfast.deliver.cluster.store import PartitionLost
from pixelfast.deliver.timing import Timings
from pixelfast.kafka.errors import error_message
from pixelfast.kafka.logger import KafkaLogger
from pixelfast.kafka.statistics import Statistics

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

    _OnRebalance = Callable[[Consumer, list[TopicPartition]], None]

__all__ = ["Group", "Owner"]

_CONSUMED_MESSAGES, _CONSUMED_BYTES = 1000, 2 * 2**20  # of one call; the size is a target
_MESSAGES_OF_A_TURN = 32  # of the event loop
_CONSUME_S = 0.02  # also the longest time that an order waits
_ORDERS_S = 0.005
_RESPONSE_S = 10.0  # of the brokers, to one request
_REVOKE_S = 20.0  # time in which the owner must stop its work; else the consumer is replaced
_MAX_WAITING_BYTES = 16 * 2**20  # in the logs of all partitions
_MIN_WAITING_BYTES = 2**19  # of one partition
_FEW_SHARE = 8  # a paused partition is resumed when less than an eighth of its limit waits
_REBALANCING = frozenset({"ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS"})
_NO_OFFSET = -1001  # OFFSET_INVALID of librdkafka
# Errors that mean that the group has removed the consumer. ILLEGAL_GENERATION is not one of them: a
# consumer also gets it while it joins the next generation, in which it keeps the partition. If the
# consumer was removed, `_on_lost` revokes the partition before the consumer joins again.
_LOST = frozenset({"UNKNOWN_MEMBER_ID", "FENCED_INSTANCE_ID", "_FENCED"})


class Owner(Protocol):
    """The object that owns the partitions of a consumer. Its methods run on the event loop."""

    async def assign(self, partition: int, checkpoint: Checkpoint) -> None:
        """Begin to work on a partition."""

    async def revoke(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        """Stop the work on partitions; nothing may be committed after it returns.

        If `is_lost`, they may have another owner already.
        """

    def add(self, partition: int, messages: Sequence[TopicMessage], /) -> int:
        """Add messages that have arrived; return the bytes that wait to be read."""

    def waiting_bytes(self, partition: int, /) -> int:
        """Return the size of the messages of a partition that wait to be read."""


class _Arrived(NamedTuple):
    partition: int
    epoch: int
    messages: list[Message]


class Group:
    """A destination's membership in its consumer group.

    Attributes:
        is_member: whether the group has assigned partitions to this consumer, possibly none.
        has_failed: whether the consumer has failed, and its successor is not a member yet.
        error: the last error of a connection; "" if there was none since it received something.
        commit_error: why the last commit failed; "" if it did not.
        statistics: the figures of the brokers.
        retries: how many requests were sent again, by broker.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic_id: str,
        destination: str,
        start: str,
        start_ms: int,
        owner: Owner,
    ) -> None:
        """Prepare the group `pixelfast.<destination>`.

        A new destination starts at the earliest event, or, if `start` is "newest", at the first one
        that was received at `start_ms` or later.
        """
        self.is_member = self.has_failed = False
        self.error = self.commit_error = ""
        self.retries: Counter[str] = Counter()
        self.statistics = Statistics(self._count_retries)
        self.name = f"pixelfast.{destination}"
        self._topic = cluster.topic
        self._owner = owner
        self._log = structlog.get_logger("deliver").bind(destination=destination)
        self._properties = group_properties(cluster, self.name)
        self._consumer: Consumer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = threading.Event()
        self._offsets = GroupOffsets(
            cluster.topic,
            topic_id,
            start,
            start_ms,
            self._properties,
            self._is_stopping,
            self._note_error,
            self._log,
        )
        self._logged = LoggedReasons(Timings().log_again_s)  # of commits that failed
        self._orders: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._rewinds: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._epochs: dict[int, int] = {}  # by partition: how often it was assigned or rewound
        self._current: dict[int, int] = {}  # the same, as the event loop knows it
        self._assigned: set[int] = set()
        self._paused: set[int] = set()
        self._failure: Exception | None = None  # of a callback

    async def run(self) -> None:
        """Join the group, and stay a member until `stop`.

        Raises:
            KafkaException: the consumer has failed for good.
        """
        loop = self._loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            error: Exception | None = None
            try:
                self._work()
            except Exception as caught:  # noqa: BLE001 - raised on the event loop
                self.has_failed, error = True, caught
            loop.call_soon_threadsafe(_end, ended, error)

        self._is_stopping.clear()
        self._thread = threading.Thread(target=work, name=f"{self.name}", daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            self._is_stopping.set()

    def stop(self) -> None:
        """Leave the group; its partitions are revoked."""
        self._is_stopping.set()

    def commit(self, partition: int, offset: int, metadata: str) -> bool:
        """Commit an offset; return False if that failed and may be retried. Blocks.

        Raises:
            PartitionLost: the consumer does not own the partition any more.
        """
        from confluent_kafka import KafkaException, TopicPartition

        place = TopicPartition(self._topic, partition, offset, metadata)
        done: Future[None] = Future()

        def commit(consumer: Consumer) -> None:
            try:
                for each in consumer.commit(offsets=[place], asynchronous=False) or ():
                    if each.error is not None:
                        raise KafkaException(each.error)
            except Exception as error:  # noqa: BLE001 - raised in the thread that waits
                done.set_exception(error)
            else:
                done.set_result(None)

        # During a rebalance, a commit would only end in the thread that runs the callbacks.
        if self._consumer is None:
            raise PartitionLost("the consumer has left its group")
        self._orders.put(commit)
        try:
            done.result(_REVOKE_S)
        except TimeoutError as error:
            raise PartitionLost(f"no commit within {_REVOKE_S:g} s") from error
        except KafkaException as error:
            return self._judge(error.args[0])
        except RuntimeError as error:  # it is closed
            raise PartitionLost(str(error)) from error
        self.commit_error = ""
        return True

    def _judge(self, error: KafkaError) -> bool:
        if error.name() in _LOST or error.fatal():
            raise PartitionLost(error.str())
        if error.name() not in _REBALANCING:
            self.commit_error = error_message(error)
            if self._logged.is_due(self.commit_error):
                self._log.warning("offset_not_committed", error=self.commit_error)
        return False

    @property
    def paused(self) -> list[int]:
        """The partitions that are paused, because too many of their messages wait."""
        return list(self._paused)

    def rewind(self, partition: int) -> None:
        """Assign a partition again from its last commit, after its runner has failed."""
        self._rewinds.put(partition)

    # --- in the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        from confluent_kafka import Consumer

        self._failure = None
        consumer = self._consumer = Consumer(
            {
                **self._properties,
                "error_cb": self._on_error,
                "stats_cb": self.statistics.read,
            },
            logger=KafkaLogger(self._log),
        )
        try:
            consumer.subscribe(
                [self._topic],
                on_assign=self._without_errors(self._on_assign),
                on_revoke=self._without_errors(self._on_revoke),
                on_lost=self._without_errors(self._on_lost),
            )
            count = 1
            while not self._is_stopping.is_set():
                self._carry_out_orders(consumer)
                while not self._rewinds.empty():  # not inside a callback
                    self._rewind(consumer, self._rewinds.get())
                messages = consumer.consume(count, _CONSUME_S)
                self._raise_failure()
                self._pass_on(consumer, messages)
                if messages:
                    size_bytes = sum(len(each.value() or b"") for each in messages)
                    fitting = _CONSUMED_BYTES * len(messages) // max(1, size_bytes)
                    count = min(_CONSUMED_MESSAGES, max(1, fitting))
        finally:
            self.is_member = False
            try:
                consumer.close()  # calls `_on_revoke`
            finally:
                self._consumer = None
                self._offsets.close()
                self.statistics.forget()
        self._raise_failure()

    def _without_errors(self, callback: _OnRebalance) -> _OnRebalance:
        """Return a callback that raises nothing; `_raise_failure` raises its error instead.

        confluent-kafka never releases an error that a callback raises, with all that its frames
        refer to.
        """

        def call(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                callback(consumer, partitions)
            except Exception as error:  # noqa: BLE001 - raised after the call of the consumer
                self._failure = error

        return call

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _pass_on(self, consumer: Consumer, messages: list[Message]) -> None:
        from confluent_kafka import KafkaException

        by_partition: dict[int, list[Message]] = {}
        for each in messages:
            error = each.error()
            if error is None:
                by_partition.setdefault(each.partition() or 0, []).append(each)
                self.error = ""
            elif error.fatal():
                raise KafkaException(error)
            else:
                self.error = error.str()
        assert self._loop is not None
        arrived = [_Arrived(n, self._epochs.get(n, 0), own) for n, own in by_partition.items()]
        waiting = self._call(self._take_in(arrived, list(self._paused)), _RESPONSE_S)
        limit = max(_MIN_WAITING_BYTES, _MAX_WAITING_BYTES // max(1, len(self._assigned)))
        for partition, size_bytes in waiting.items():
            place = self._place(partition)
            if partition not in self._paused and size_bytes > limit:
                consumer.pause([place])
                self._paused.add(partition)
            elif partition in self._paused and size_bytes < limit // _FEW_SHARE:
                consumer.resume([place])
                self._paused.discard(partition)

    def _carry_out_orders(self, consumer: Consumer, wait_s: float = 0.0) -> None:
        """Carry out the orders of other threads; wait up to `wait_s` for the first one."""
        with contextlib.suppress(queue.Empty):
            self._orders.get(wait_s > 0, wait_s)(consumer)
            while True:
                self._orders.get_nowait()(consumer)

    def _call(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Run a coroutine on the event loop and return its result; commit meanwhile."""
        assert self._loop is not None
        assert self._consumer is not None
        called = asyncio.run_coroutine_threadsafe(work, self._loop)
        until_s = time.monotonic() + timeout_s
        while not called.done() and time.monotonic() < until_s:
            self._carry_out_orders(self._consumer, _ORDERS_S)
        return called.result(0)

    def _place(self, partition: int, offset: int = _NO_OFFSET) -> TopicPartition:
        from confluent_kafka import TopicPartition

        return TopicPartition(self._topic, partition, offset)

    def _count_retries(self, broker: str, retries: int) -> None:
        self.retries[broker] += retries

    def _on_error(self, error: KafkaError) -> None:
        self._note_error(error.str())

    def _note_error(self, error: str) -> None:
        self.error = error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions]
        self._log.info("partitions_assigned", partitions=numbers)
        found = self._offsets.checkpoints(consumer, numbers)
        starts = [self._begin(number, checkpoint) for number, checkpoint in found.items()]
        consumer.incremental_assign(starts)
        self._assigned.update(numbers)
        self._paused.difference_update(numbers)
        self.is_member, self.has_failed = True, False
        self.error = self.commit_error = ""

    def _begin(self, partition: int, checkpoint: Checkpoint) -> TopicPartition:
        """Pass a partition to the owner, and return where to read it."""
        epoch = self._epochs[partition] = self._epochs.get(partition, 0) + 1
        self._call(self._assign(partition, epoch, checkpoint), _RESPONSE_S)
        return self._place(partition, checkpoint.after.offset)

    def _rewind(self, consumer: Consumer, partition: int) -> None:
        if partition not in [each.partition for each in consumer.assignment()]:
            return  # it was revoked meanwhile
        checkpoint = self._offsets.checkpoints(consumer, [partition])[partition]
        consumer.seek(self._begin(partition, checkpoint))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._revoke(consumer, partitions, is_lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.is_member = False
        self._revoke(consumer, partitions, is_lost=True)

    def _revoke(
        self, consumer: Consumer, partitions: list[TopicPartition], *, is_lost: bool
    ) -> None:
        numbers = [each.partition for each in partitions]
        if is_lost:
            self._log.warning("partitions_lost", partitions=numbers)
        else:
            self._log.info("partitions_revoked", partitions=numbers)
        self._call(self._owner.revoke(numbers, is_lost=is_lost), _REVOKE_S)
        consumer.incremental_unassign(partitions)
        self._assigned.difference_update(numbers)
        self._paused.difference_update(numbers)

    # --- on the event loop -------------------------------------------------------------------

    async def _assign(self, partition: int, epoch: int, checkpoint: Checkpoint) -> None:
        self._current[partition] = epoch
        await self._owner.assign(partition, checkpoint)

    async def _take_in(self, arrived: list[_Arrived], paused: list[int]) -> dict[int, int]:
        """Pass messages to the owner; return how many bytes wait in each partition."""
        waiting = {number: self._owner.waiting_bytes(number) for number in paused}
        for partition, epoch, messages in arrived:
            if epoch == self._current.get(partition):
                for start in range(0, len(messages), _MESSAGES_OF_A_TURN):
                    some = messages[start : start + _MESSAGES_OF_A_TURN]
                    waiting[partition] = self._owner.add(partition, some)
                    await asyncio.sleep(0)
        return waiting


def _end(ended: asyncio.Future[None], error: Exception | None) -> None:
    if ended.done():
        return
    if error is not None:
        ended.set_exception(error)
    else:
        ended.set_result(None)
