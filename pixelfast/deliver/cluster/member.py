"""A destination of a cluster in a process: a member of its consumer group."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from pixelfast.backoff import Backoff
from pixelfast.config import Cluster, Destination, Redactor
from pixelfast.deliver.cluster.checkpoint import Checkpoint
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.fetcher import Fetcher
from pixelfast.deliver.cluster.group import Group
from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.log import PartitionLog, TopicMessage
from pixelfast.deliver.cluster.reasons import LoggedReasons
from pixelfast.deliver.cluster.store import PartitionLost, PartitionState
from pixelfast.deliver.cluster.worker import PartitionWorker
from pixelfast.deliver.engine import SENDER_TOTALS
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.progress import COUNTED
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.timing import Timings
from pixelfast.errors import DestinationError, PixelfastError
from pixelfast.kafka.errors import reason_of

__all__ = ["Member"]

_LOOKED_AT = 200  # newest messages of a partition, which are read to count its events
_COMMIT_S = 10.0  # for which librdkafka may wait for the coordinator of the group
_COUNTERS = (*COUNTED, "stored", "duplicate_frames", "invalid_messages")  # reported by partition
_SUMMED = (*_COUNTERS, "pending", "unread", "under_way")
_STATES = (  # the worst one last
    "healthy",
    "starting",
    "waiting",
    "backing_off",
    "held",
    "disabled",
    "failing",
)


class Member:
    """One destination: a member of its consumer group, with a runner for each partition.

    The runners share an outlet and the memory of the destination.

    Attributes:
        name: the name of the destination.
    """

    def __init__(
        self,
        destination: Destination,
        cluster: Cluster,
        topic_id: str,
        outlet: Outlet,
        make_runner: Callable[[Destination, Outlet, PartitionHome, int], Runner],
        share_bytes: int,
        selection: Callable[[], Any],
        dead: DeadLetterTopic,
        dead_index: DeadLetterIndex,
        timings: Timings,
        start_ms: int,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._topic_id = topic_id
        self._outlet = outlet
        self._make_runner = make_runner
        self._share_bytes = share_bytes
        self._selection = selection
        self._dead = dead
        self._dead_index = dead_index
        self._timings = timings
        self._log = structlog.get_logger("deliver").bind(destination=self.name)
        self._group = Group(cluster, topic_id, self.name, destination.start, start_ms, self)
        self._fetcher = Fetcher(cluster, self._group.name, self._log)
        self._workers: dict[int, PartitionWorker] = {}
        self._is_stopping = False
        self._backoff = Backoff(timings.min_restart_s, timings.max_restart_s)
        self._logged = LoggedReasons(timings.log_again_s)

    async def run(self) -> None:
        """Deliver until `stop`; a consumer that fails is replaced."""
        looking = asyncio.create_task(self._look_ahead())
        try:
            while not self._is_stopping:
                try:
                    await self._group.run()
                except Exception as error:  # noqa: BLE001 - a task's edge: no destination stops another
                    self._log.exception("consumer_failed")
                    self._group.error = self._outlet.sender.redactor.text(reason_of(error))
                    with contextlib.suppress(DestinationError):
                        await self.revoke(list(self._workers), is_lost=True)
                    if not self._is_stopping:
                        await asyncio.sleep(self._backoff.next_s())
        finally:
            looking.cancel()
            await asyncio.wait({looking})
            self._group.stop()
            await asyncio.to_thread(self._fetcher.close)

    async def _look_ahead(self) -> None:
        """Count the events that stay in the topic because too many others are undelivered."""
        while True:
            await asyncio.sleep(self._timings.figures_s)
            for partition in self._group.paused:
                worker = self._workers.get(partition)
                if worker is not None:
                    try:
                        await self._look(partition, worker.log)
                    except Exception as error:  # noqa: BLE001 - only a figure is missing
                        self._group.error = str(error)

    async def _look(self, partition: int, log: PartitionLog) -> None:
        end = await asyncio.to_thread(self._fetcher.end, partition)
        offset = max(log.arrived_offset, end - _LOOKED_AT)
        while offset < end:
            messages = await asyncio.to_thread(self._fetcher.fetch, partition, offset)
            if not messages:
                break
            log.look_ahead(messages)
            offset = (messages[-1].offset() or 0) + 1

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
            self._dead_index,
            self._selection,
        )
        share_bytes = self._share_bytes // (len(self._workers) + 1)
        runner = self._make_runner(self._destination, self._outlet, home, share_bytes)
        worker = self._workers[partition] = PartitionWorker(partition, runner, home, log, state)
        self._follow(self._selection())
        worker.task = asyncio.create_task(self._supervise(partition, worker))

    async def _supervise(self, partition: int, worker: PartitionWorker) -> None:
        try:
            await worker.runner.run()
        except PartitionLost as error:
            self._log.warning("partition_dropped", partition=partition, reason=str(error))
            if not worker.state.is_revoked:
                self._group.rewind(partition)
        except Exception as error:  # noqa: BLE001 - a task's edge: no partition stops another
            reason = self._outlet.sender.redactor.text(str(error) or type(error).__name__)
            worker.runner.fail(reason)
            self._report(partition, reason, error)
            await asyncio.sleep(self._backoff.next_s())
            if not worker.state.is_revoked:
                self._group.rewind(partition)

    def _report(self, partition: int, reason: str, error: Exception) -> None:
        """Log a failure; each reason at most once a minute, whatever the number of partitions."""
        if self._logged.is_due(reason):
            is_known = isinstance(error, OSError | PixelfastError)
            self._log.error(
                "partition_failed",
                partition=partition,
                error=reason,
                exc_info=None if is_known else error,
            )

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
        self._follow(self._selection())
        if any(each.state.is_committing for each in workers):
            raise DestinationError("a commit did not end in time")

    def _follow(self, selection: Selection) -> None:
        """Tell all runners which events to deliver, and their share of the memory."""
        for each in self._workers.values():
            each.runner.follow(selection, self._share_bytes // len(self._workers))

    def add(self, partition: int, messages: Sequence[TopicMessage]) -> int:
        worker = self._workers.get(partition)
        if worker is None:
            return 0
        worker.log.add(messages)
        return worker.log.waiting_bytes

    def waiting_bytes(self, partition: int) -> int:
        worker = self._workers.get(partition)
        return worker.log.waiting_bytes if worker is not None else 0

    def follow(self, selection: Selection, share_bytes: int, redactor: Redactor) -> None:
        """Apply settings that do not require other runners."""
        self._share_bytes = share_bytes
        self._outlet.sender.redactor = redactor
        self._follow(selection)

    # --- figures -----------------------------------------------------------------------------

    @property
    def retries(self) -> dict[str, int]:
        """How many requests were sent to each broker again."""
        return dict(self._group.retries)

    def sender_totals(self) -> dict[str, int]:
        """Return what the sender has counted since it was made."""
        figures = self._outlet.sender.figures()
        return {name: int(figures[name]) for name in SENDER_TOTALS if name in figures}

    def stats(self) -> dict[str, Any]:
        """Return the figures of all own partitions together."""
        figures: Counter[str] = Counter(dict.fromkeys(_SUMMED, 0))
        dead_letters: dict[str, Any] = {}
        by_partition: dict[str, dict[str, int]] = {}
        lag_s, errors = 0.0, [self._group.error, self._group.commit_error]
        group = self._group
        states = ["failing" if group.has_failed else "healthy" if group.is_member else "starting"]
        for partition, worker in self._workers.items():
            own = worker.figures()
            by_partition[str(partition)] = {name: own[name] for name in _COUNTERS}
            figures.update({name: own[name] for name in _SUMMED if name in own})
            dead_letters |= own["dead_letters"]  # one of the runners has them
            lag_s = max(lag_s, own.get("lag_s", 0.0))
            states.append(own["state"])
            errors.append(own["last_error"])
        return {
            **figures,
            **self._outlet.sender.figures(),
            "cluster_brokers": self._group.statistics.brokers(),
            "concurrency": self._outlet.health.concurrency.limit,
            "lag_s": lag_s,
            "partitions": sorted(self._workers),
            "by_partition": by_partition,
            "dead_letters": dead_letters,
            "state": max(states, key=_STATES.index),
            "last_error": next(filter(None, reversed(errors)), ""),
        }
