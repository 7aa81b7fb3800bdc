"""Delivery of a process from the topic of a cluster: a consumer group for each destination."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from pixelfast.config import Cluster, Config, Destination, Redactor
from pixelfast.deliver import destinations
from pixelfast.deliver.archive.quota import SpoolNeeds
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cluster.checkpoint import Checkpoint
from pixelfast.deliver.cluster.dead import DeadLetterTopic, DeadLetterWriter
from pixelfast.deliver.cluster.group import Fetcher, Group, topic_id_of
from pixelfast.deliver.cluster.log import PartitionLog, TopicMessage, place_at
from pixelfast.deliver.cluster.store import (
    PartitionLost,
    PartitionState,
    PartitionStore,
    batch_id,
)
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.engine import retry_time_s, select
from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.memory import share_of
from pixelfast.deliver.progress import COUNTED
from pixelfast.deliver.retry import Backoff
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.errors import DestinationError
from pixelfast.spool import DataDir

__all__ = ["ClusterEngine"]

_COMMIT_S = 10.0  # for which librdkafka may wait for the coordinator of the group
_SUMMED = (*COUNTED, "stored", "pending", "under_way")
_STATES = ("healthy", "starting", "retrying", "held", "failing")  # the worst one last


class PartitionHome:
    """One partition of the topic, for a runner of one destination."""

    def __init__(
        self,
        destination: str,
        partition: int,
        topic_id: str,
        checkpoint: Checkpoint,
        log: PartitionLog,
        state: PartitionState,
        dead: DeadLetterTopic,
        select_now: Callable[[], Any],
    ) -> None:
        self.log: EventLog = log
        self._destination = destination
        self._partition = partition
        self._topic_id = topic_id
        self._checkpoint = checkpoint
        self._messages = log
        self._state = state
        self._dead = dead
        self._select = select_now

    async def claim(
        self, pause: Callable[[], Any], on_claimed: Callable[[Exception], None]
    ) -> bool:
        """Do nothing: the group has assigned the partition."""
        del pause, on_claimed
        return True

    def release(self) -> None:
        """Do nothing: the group revokes the partition."""

    def open_store(self) -> PartitionStore:
        return PartitionStore(
            self._partition,
            self._topic_id,
            self._checkpoint,
            self._messages,
            self._state,
            self._select,
        )

    def dead_letters(
        self, limits: DeadLetterLimits, log: Any, timings: Timings, clock: DeliveryClock
    ) -> DeadLetterWriter:
        del limits, log, timings  # the topic's retention limits them
        return DeadLetterWriter(self._dead, self._destination, clock)

    def batch_id(self, cut: Cut) -> str:
        (bounds,) = cut.ranges
        start, stop = place_at(bounds.start), place_at(bounds.stop)
        return batch_id(self._topic_id, self._partition, start, stop)

    def note_working(self) -> None:
        """Do nothing: no other process decides by that."""

    def stored_figures(
        self, end_numbers: Mapping[int, int] | None, clock: DeliveryClock
    ) -> dict[str, float]:
        """Return nothing: the figures are read when the runner restarts."""
        del end_numbers, clock
        return {}


class _Worker:
    """A runner of one partition, and what belongs to it."""

    def __init__(self, runner: Runner, log: PartitionLog, state: PartitionState) -> None:
        self.runner = runner
        self.log = log
        self.state = state
        self.task: asyncio.Task[None] | None = None


class Member:
    """One destination: a member of its consumer group, with a runner for each partition.

    Attributes:
        name: the name of the destination.
    """

    def __init__(
        self,
        destination: Destination,
        cluster: Cluster,
        topic_id: str,
        make_runner: Callable[[Destination, PartitionHome], Runner],
        selection: Callable[[], Any],
        dead: DeadLetterTopic,
        timings: Timings,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._topic_id = topic_id
        self._make_runner = make_runner
        self._selection = selection
        self._dead = dead
        self._timings = timings
        self._log = structlog.get_logger("deliver").bind(destination=self.name)
        self._group = Group(cluster, self.name, destination.start, self)
        self._fetcher = Fetcher(cluster, self._group.name, self._log)
        self._workers: dict[int, _Worker] = {}
        self._is_stopping = False
        self._backoff = Backoff(timings.min_restart_s, timings.max_restart_s)

    async def run(self) -> None:
        """Deliver until `stop`; a consumer that fails is replaced."""
        try:
            while not self._is_stopping:
                try:
                    await self._group.run()
                except Exception:  # noqa: BLE001 - a task's edge: no destination stops another
                    self._log.exception("consumer_failed")
                    with contextlib.suppress(DestinationError):
                        await self.revoke(list(self._workers), is_lost=True)
                    if not self._is_stopping:
                        await asyncio.sleep(self._backoff.next_s())
        finally:
            self._group.stop()
            await asyncio.to_thread(self._fetcher.close)

    async def stop(self) -> None:
        """Stop the work on all partitions, and leave the group."""
        self._is_stopping = True
        try:
            await self.revoke(list(self._workers), is_lost=False)
        finally:
            self._group.stop()

    # --- the owner of the group's partitions -------------------------------------------------

    async def assign(self, partition: int, checkpoint: Checkpoint) -> None:
        if self._is_stopping:
            return
        if partition in self._workers:
            await self.revoke([partition], is_lost=True)
        fetch = partial(self._fetcher.fetch, partition)
        log = PartitionLog(partition, checkpoint, fetch)
        state = PartitionState(partial(self._group.commit, partition))
        home = PartitionHome(
            self.name,
            partition,
            self._topic_id,
            checkpoint,
            log,
            state,
            self._dead,
            self._selection,
        )
        worker = _Worker(self._make_runner(self._destination, home), log, state)
        self._workers[partition] = worker
        worker.task = asyncio.create_task(self._supervise(partition, worker))

    async def _supervise(self, partition: int, worker: _Worker) -> None:
        try:
            await worker.runner.run()
        except PartitionLost as error:
            self._log.warning("partition_dropped", partition=partition, reason=str(error))
            if not worker.state.is_revoked:
                self._group.rewind(partition)
        except Exception as error:  # noqa: BLE001 - a task's edge: no partition stops another
            worker.runner.fail(str(error))
            self._log.exception("partition_failed", partition=partition)
            await asyncio.sleep(self._backoff.next_s())
            if not worker.state.is_revoked:
                self._group.rewind(partition)

    async def revoke(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        """Stop the work on partitions.

        Raises:
            DestinationError: a commit did not end, so that the consumer must be replaced.
        """
        workers = [self._workers.pop(each) for each in partitions if each in self._workers]
        tasks = [each.task for each in workers if each.task is not None]
        for each in workers:
            if is_lost:
                each.state.revoke()
            each.runner.give_way()
        if tasks and not is_lost:
            await asyncio.wait(tasks, timeout=self._timings.revoke_s)
        for each in workers:
            each.state.revoke()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_COMMIT_S)
        if any(each.state.is_committing for each in workers):
            raise DestinationError("a commit did not end in time")

    def add(self, partition: int, messages: Sequence[TopicMessage]) -> int:
        worker = self._workers.get(partition)
        if worker is None:
            return 0
        worker.log.add(messages)
        return worker.log.waiting_bytes

    def waiting_bytes(self, partition: int) -> int:
        worker = self._workers.get(partition)
        return worker.log.waiting_bytes if worker is not None else 0

    # --- figures -----------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the figures of all own partitions together."""
        figures: Counter[str] = Counter(dict.fromkeys(_SUMMED, 0))
        lag_s, states, errors = 0.0, ["healthy"], [self._group.error]
        for partition, worker in self._workers.items():
            own: dict[str, Any] = worker.runner.stats({partition: worker.log.next_number})
            figures.update({name: own[name] for name in _SUMMED if name in own})
            lag_s = max(lag_s, own.get("lag_s", 0.0))
            states.append(own["state"])
            errors.append(own["last_error"])
        return {
            **figures,
            "lag_s": lag_s,
            "partitions": sorted(self._workers),
            "state": max(states, key=lambda each: _STATES.index(each) if each in _STATES else 2),
            "last_error": next(filter(None, reversed(errors)), ""),
        }


class ClusterEngine:
    """Deliver the events of a cluster's topic to all destinations.

    Attributes:
        members: the destinations that can be used.
        unusable: destinations that cannot be created, with the reason.
    """

    def __init__(
        self,
        config: Config,
        data: DataDir,
        *,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock | None = None,
        make_sender: Callable[[Destination, DataDir, DeliveryClock], Sender] | None = None,
    ) -> None:
        assert config.cluster is not None
        self._cluster = config.cluster
        self._config = config
        self._data = data
        self._timings = timings
        self._clock = clock or DeliveryClock()
        self._make_sender = make_sender or partial(
            destinations.make_sender, needs=SpoolNeeds.of(config.spool, 1)
        )
        self._log = structlog.get_logger("deliver")
        self._redactor = Redactor(config)
        self._attempts: dict[str, Attempts] = {}
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._dead = DeadLetterTopic(config.cluster, self._log)
        self.names = [each.name for each in config.destinations]
        self.members: list[Member] = []
        self.unusable: dict[str, str] = {}

    async def run(self) -> None:
        """Deliver until `stop`."""
        topic_id = await self._find_topic()
        if topic_id is None:
            return
        for each in self._config.destinations:
            self._add(each, topic_id)
        running = [asyncio.create_task(each.run()) for each in self.members]
        try:
            await self._stopping.wait()
        finally:
            stopped = [member.stop() for member in self.members]
            await asyncio.gather(*stopped, return_exceptions=True)
            await asyncio.gather(*running)

    def _add(self, destination: Destination, topic_id: str) -> None:
        try:
            self._make_sender(destination, self._data, self._clock)
        except Exception as error:  # noqa: BLE001 - any error of a library about a setting
            self._log.exception("destination_unusable", destination=destination.name)
            self.unusable[destination.name] = self._redactor.text(str(error))
            return
        self.members.append(
            Member(
                destination,
                self._cluster,
                topic_id,
                self._runner,
                partial(select, self._config, destination),
                self._dead,
                self._timings,
            )
        )

    async def _find_topic(self) -> str | None:
        """Return the id of the topic; wait until the brokers respond. None: it was stopped."""
        from confluent_kafka import KafkaException

        backoff = Backoff(self._timings.min_restart_s, self._timings.max_restart_s)
        while not self._stopping.is_set():
            try:
                topic_id = await asyncio.to_thread(topic_id_of, self._cluster)
                await asyncio.to_thread(self._dead.create)
            except KafkaException as error:
                self._log.error("cluster_unavailable", error=error.args[0].str())
            else:
                return topic_id
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff.next_s())
            except TimeoutError:
                continue
        return None

    def stop(self) -> None:
        self._stopping.set()

    def _runner(self, destination: Destination, home: PartitionHome) -> Runner:
        sender = self._make_sender(destination, self._data, self._clock)
        sender.redactor = self._redactor
        sender.attempts = self._attempts.setdefault(destination.name, Attempts(self._clock))
        return Runner(
            destination.name,
            sender,
            home,
            select(self._config, destination),
            retry_for_s=retry_time_s(destination),
            share_bytes=share_of(self._config.deliver.max_memory, len(self.names)),
            turn=self._turn,
            timings=self._timings,
            clock=self._clock,
        )

    def stats(self) -> dict[str, Any]:
        """Return the figures of all destinations, of the partitions that this process owns."""
        unusable = {
            name: {"state": "unusable", "last_error": reason}
            for name, reason in self.unusable.items()
        }
        return {
            "is_ready": bool(self.members) and not self.unusable,
            "destinations": {each.name: each.stats() for each in self.members} | unusable,
            "totals": {
                "senders": {},
                "removed_segments": 0,
                "attempts": {name: own.figures() for name, own in self._attempts.items()},
            },
        }
