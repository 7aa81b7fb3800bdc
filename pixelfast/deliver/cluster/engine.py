"""Delivery of a process from the topic of a cluster: a consumer group for each destination."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from pixelfast.cluster.topic import read_topic_settings, retention_problems
from pixelfast.config import Cluster, Config, Destination, Redactor
from pixelfast.deliver import destinations
from pixelfast.deliver.archive.quota import SpoolNeeds
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cluster.checkpoint import Checkpoint
from pixelfast.deliver.cluster.dead import DeadLetterTopic, DeadLetterWriter
from pixelfast.deliver.cluster.group import Fetcher, Group, topic_id_of
from pixelfast.deliver.cluster.log import PartitionLog, TopicMessage, place_at
from pixelfast.deliver.cluster.starts import start_ms
from pixelfast.deliver.cluster.store import (
    PartitionLost,
    PartitionState,
    PartitionStore,
    batch_id,
)
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.engine import made_of, retry_time_s
from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.memory import share_of
from pixelfast.deliver.progress import COUNTED
from pixelfast.deliver.retry import Backoff
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.selections import Selections
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
        start_ms: int,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._topic_id = topic_id
        self._make_runner = make_runner
        self._selection = selection
        self._dead = dead
        self._timings = timings
        self._log = structlog.get_logger("deliver").bind(destination=self.name)
        self._group = Group(cluster, self.name, destination.start, start_ms, self)
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

    def follow(self, selection: Selection, share_bytes: int, redactor: Redactor) -> None:
        """Apply settings that do not require other runners."""
        for each in self._workers.values():
            each.runner.follow(selection, share_bytes)
            each.runner.sender.redactor = redactor

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
    """Deliver the events of a cluster's topic to the destinations `names`, or to all.

    Attributes:
        members: the destinations that can be used.
        unusable: destinations that cannot be created, with the reason.
    """

    def __init__(
        self,
        config: Config,
        data: DataDir,
        names: Collection[str] | None = None,
        *,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock | None = None,
        make_sender: Callable[[Destination, DataDir, DeliveryClock], Sender] | None = None,
    ) -> None:
        assert config.cluster is not None
        self._cluster = config.cluster
        self._config = config
        self._names = names
        self._data = data
        self._timings = timings
        self._clock = clock or DeliveryClock()
        self._make_sender = make_sender or partial(
            destinations.make_sender, needs=SpoolNeeds.of(config.spool, 1)
        )
        self._log = structlog.get_logger("deliver")
        self._redactor = Redactor(config)
        self._attempts: dict[str, Attempts] = {}
        self._selections = Selections(config)
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._dead = DeadLetterTopic(config.cluster, self._log)
        self._topic_id = ""  # until the brokers have responded
        self._last_error = ""
        self._made: dict[str, tuple[object, ...]] = {}
        self._running: dict[Member, asyncio.Task[None]] = {}
        self.members: list[Member] = []
        self.unusable: dict[str, str] = {}

    @property
    def _own(self) -> list[Destination]:
        """The destinations of this engine."""
        names = self._names
        return [each for each in self._config.destinations if names is None or each.name in names]

    @property
    def names(self) -> list[str]:
        """The names of the destinations of this engine."""
        return [each.name for each in self._own]

    async def run(self) -> None:
        """Deliver until `stop`."""
        topic_id = await self._find_topic()
        if topic_id is None:
            return
        self._topic_id = topic_id
        self._start_all()
        try:
            await self._stopping.wait()
        finally:
            await self._stop(self._running)

    def _start_all(self) -> None:
        """Start the destinations that are not running."""
        known = {each.name: each for each in self.members}
        members = [known.get(each.name) or self._make(each) for each in self._own]
        self.members = [each for each in members if each is not None]
        for member in self.members:
            if member not in self._running:
                self._running[member] = asyncio.create_task(member.run())

    async def _stop(self, members: Collection[Member]) -> None:
        running = {each: self._running[each] for each in members}
        await asyncio.gather(*(each.stop() for each in running), return_exceptions=True)
        await asyncio.gather(*running.values())
        for each in running:
            del self._running[each]

    def _make(self, destination: Destination) -> Member | None:
        """Create a member of a group, or return None if the destination is unusable."""
        try:
            self._make_sender(destination, self._data, self._clock)
        except Exception as error:  # noqa: BLE001 - any error of a library about a setting
            self._log.exception("destination_unusable", destination=destination.name)
            self.unusable[destination.name] = self._redactor.text(str(error))
            return None
        self._made[destination.name] = made_of(destination)
        return Member(
            destination,
            self._cluster,
            self._topic_id,
            self._runner,
            partial(self._selections.of, destination),
            self._dead,
            self._timings,
            start_ms(self._data, destination.name),
        )

    async def _find_topic(self) -> str | None:
        """Return the id of the topic; wait until the brokers respond. None: it was stopped."""
        from confluent_kafka import KafkaException

        backoff = Backoff(self._timings.min_restart_s, self._timings.max_restart_s)
        while not self._stopping.is_set():
            try:
                topic_id = await asyncio.to_thread(topic_id_of, self._cluster)
                await asyncio.to_thread(self._dead.create)
                await asyncio.to_thread(self._check_retention)
            except KafkaException as error:
                self._last_error = error.args[0].str()
                self._log.error("cluster_unavailable", error=self._last_error)
            else:
                return topic_id
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff.next_s())
            except TimeoutError:
                continue
        return None

    def _check_retention(self) -> None:
        """Warn if the topic may delete events that are still retried. Blocks."""
        times_s = [retry_time_s(each) for each in self._config.destinations]
        longest_s = max((each for each in times_s if each < float("inf")), default=0.0)
        for problem in retention_problems(read_topic_settings(self._cluster), longest_s):
            self._log.warning("topic_retention_short", topic=self._cluster.topic, problem=problem)

    def stop(self) -> None:
        self._stopping.set()

    async def reload(self, config: Config, names: Collection[str] | None = None) -> None:
        """Apply new settings, with the destinations `names` or all; `[cluster]` does not change.

        Unchanged destinations continue without interruption. A changed destination leaves its
        group, in which other processes may still have the old settings, and joins it again. Returns
        when no runner uses the old settings.
        """
        before = self._made
        self._selections.follow(config)
        self._redactor = Redactor(config)
        self._config, self._names = config, names
        if not self._topic_id:
            return
        made = {each.name: made_of(each) for each in self._own}
        kept = [each for each in self.members if made.get(each.name) == before[each.name]]
        for each in self._own:
            for member in kept:
                if member.name == each.name:
                    member.follow(self._selections.of(each), self._share_bytes, self._redactor)
        leaving = [each for each in self.members if each not in kept]
        await self._stop(leaving)
        if self._stopping.is_set():
            return
        self.members = kept
        self.unusable.clear()
        self._start_all()
        unchanged, changed = {each.name for each in kept}, {each.name for each in leaving}
        known = {each.name for each in self.members}
        self._log.info(
            "destinations_reloaded",
            added=sorted(known - changed - unchanged),
            changed=sorted(known & changed),
            removed=sorted(changed - known),
        )

    @property
    def _share_bytes(self) -> int:
        return share_of(self._config.deliver.max_memory, len(self._own))

    def _runner(self, destination: Destination, home: PartitionHome) -> Runner:
        sender = self._make_sender(destination, self._data, self._clock)
        sender.redactor = self._redactor
        sender.attempts = self._attempts.setdefault(destination.name, Attempts(self._clock))
        return Runner(
            destination.name,
            sender,
            home,
            self._selections.of(destination),
            retry_for_s=retry_time_s(destination),
            share_bytes=self._share_bytes,
            turn=self._turn,
            timings=self._timings,
            clock=self._clock,
        )

    def stats(self) -> dict[str, Any]:
        """Return the figures of all destinations, of the partitions that this process owns."""
        found: dict[str, dict[str, Any]] = {
            name: {"state": "starting", "last_error": self._last_error} for name in self.names
        }
        found |= {each.name: each.stats() for each in self.members}
        for name, reason in self.unusable.items():
            found[name] = {"state": "unusable", "last_error": reason}
        for name, own in found.items():
            if name in self._attempts and self._attempts[name].last_success_s:
                own["last_success_s"] = self._attempts[name].last_success_s
        return {
            "is_ready": bool(self._topic_id) and not self.unusable,
            "destinations": found,
            "totals": {
                "senders": {},
                "removed_segments": 0,
                "attempts": {name: own.figures() for name, own in self._attempts.items()},
            },
        }
