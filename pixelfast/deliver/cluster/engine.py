"""Delivery of a process from the topic of a cluster: a consumer group for each destination."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import structlog

from pixelfast.backoff import Backoff
from pixelfast.cluster.topic import read_topic_settings, retention_problems
from pixelfast.config import Config, Destination, Redactor
from pixelfast.deliver import destinations
from pixelfast.deliver.archive.quota import SpoolNeeds
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.cluster.dead import DeadLetterTopic
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.member import Member
from pixelfast.deliver.cluster.requests import in_background
from pixelfast.deliver.cluster.starts import start_ms
from pixelfast.deliver.cluster.topic_id import TopicId
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.engine import made_of, retry_time_s
from pixelfast.deliver.memory import share_of
from pixelfast.deliver.outlet import Outlet
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.selections import Selections
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.errors import DestinationError
from pixelfast.kafka.connection import tls_problem
from pixelfast.kafka.errors import error_message
from pixelfast.spool import DataDir

__all__ = ["ClusterEngine"]


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
            destinations.make_sender, needs=SpoolNeeds.of(config.spool, 1), is_shared=True
        )
        self._log = structlog.get_logger("deliver")
        self._redactor = Redactor(config)
        self._attempts: dict[str, Attempts] = {}
        self._selections = Selections(config)
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._changing = asyncio.Lock()  # held while members are replaced
        self._dead = DeadLetterTopic(config.cluster, self._log)
        self._dead_index = DeadLetterIndex(self._log)
        self._topic = TopicId(config.cluster)
        self._topic_id = ""  # until the brokers have responded
        self._last_error = ""
        self._retention_s = -1.0  # unlimited, or unknown
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
        following = threading.Event()
        reading = asyncio.create_task(
            asyncio.to_thread(self._dead.follow, self._dead_index, following)
        )
        self._start_all()
        try:
            while not self._stopping.is_set():
                await self._restart_with_topic()
        finally:
            await self._stop(self._running)
            following.set()
            await reading

    async def _restart_with_topic(self) -> None:
        """Wait for a while; restart all destinations if there is a new topic of the same name.

        Their consumers would continue at the offsets of the topic that was deleted.
        """
        from confluent_kafka import KafkaException

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timings.topic_s):
                await self._stopping.wait()
            return
        try:
            topic_id = await asyncio.to_thread(self._topic.look_up)
        except KafkaException:
            return  # the consumers report it
        if topic_id != self._topic_id and not self._stopping.is_set():
            self._log.warning("topic_created_again", topic=self._cluster.topic)
            self._topic_id = topic_id
            async with self._changing:
                await self._stop(self.members)
                self.members = []
                self.unusable.clear()
                self._start_all()

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
            sender = self._make_sender(destination, self._data, self._clock)
        except Exception as error:  # noqa: BLE001 - any error of a library about a setting
            self._log.exception("destination_unusable", destination=destination.name)
            self.unusable[destination.name] = self._redactor.text(str(error))
            return None
        sender.redactor = self._redactor
        sender.attempts = self._attempts.setdefault(destination.name, Attempts(self._clock))
        self._made[destination.name] = made_of(destination)
        return Member(
            destination,
            self._cluster,
            self._topic_id,
            Outlet(destination.name, sender, self._timings, self._clock),
            self._runner,
            self._share_bytes,
            partial(self._selections.of, destination),
            self._dead,
            self._dead_index,
            self._timings,
            start_ms(self._data, destination.name),
        )

    async def _find_topic(self) -> str | None:
        """Wait until the brokers respond; return the id of the topic, or None after `stop`."""
        from confluent_kafka import KafkaException

        backoff = Backoff(self._timings.min_restart_s, self._timings.max_restart_s)
        stopping = asyncio.ensure_future(self._stopping.wait())
        while not self._stopping.is_set():
            looking = asyncio.ensure_future(in_background(self._look_up_topics))
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                looking.cancel()
                return None
            try:
                topic_id = looking.result()
            except (KafkaException, DestinationError) as error:
                is_known = isinstance(error, DestinationError)
                reason = self._redactor.text(
                    str(error) if is_known else error_message(error.args[0])
                )
                if reason != self._last_error:
                    self._log.error("cluster_unavailable", error=reason)
                self._last_error = reason
            else:
                stopping.cancel()
                return topic_id
            await asyncio.wait({stopping}, timeout=backoff.next_s())
        return None

    def _look_up_topics(self) -> str:
        """Return the id of the events' topic, and check both topics. Blocks."""
        if problem := tls_problem(self._cluster):
            raise DestinationError(f"cluster.{problem}")
        topic_id = self._topic.look_up()
        self._dead.prepare()
        self._check_retention()
        return topic_id

    def _check_retention(self) -> None:
        """Warn if the topic may delete events that are still retried. Blocks."""
        settings = read_topic_settings(self._cluster)
        self._retention_s = int(settings.get("retention.ms") or -1) / 1000
        times_s = [retry_time_s(each) for each in self._config.destinations]
        longest_s = max((each for each in times_s if each < float("inf")), default=0.0)
        for problem in retention_problems(settings, longest_s):
            self._log.warning("topic_retention_short", topic=self._cluster.topic, problem=problem)

    def stop(self) -> None:
        self._stopping.set()

    async def reload(self, config: Config, names: Collection[str] | None = None) -> None:
        """Apply new settings, with the destinations `names` or all; `[cluster]` does not change.

        Unchanged destinations continue without interruption. A changed destination leaves its
        group, in which other processes may still have the old settings, and joins it again. Returns
        when no runner uses the old settings.
        """
        async with self._changing:
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

    def _runner(
        self, destination: Destination, outlet: Outlet, home: PartitionHome, share_bytes: int
    ) -> Runner:
        return Runner(
            destination.name,
            outlet,
            home,
            self._selections.of(destination),
            retry_for_s=retry_time_s(destination),
            share_bytes=share_bytes,
            dead_limits=DeadLetterLimits(
                destination.max_dead_bytes, destination.max_dead_age_s, destination.on_dead_full
            ),
            turn=self._turn,
            timings=self._timings,
            clock=self._clock,
        )

    def stats(self) -> dict[str, Any]:
        """Return the figures of all destinations for the partitions that this process owns."""
        found: dict[str, dict[str, Any]] = {
            name: {"state": "starting", "last_error": self._last_error} for name in self.names
        }
        found |= {each.name: each.stats() for each in self.members}
        for name, reason in self.unusable.items():
            found[name] = {"state": "unusable", "last_error": reason}
        for name, own in found.items():
            if self._retention_s >= 0:
                own["retention_s"] = self._retention_s
            if name in self._attempts and self._attempts[name].last_success_s:
                own["last_success_s"] = self._attempts[name].last_success_s
        return {
            "is_ready": bool(self._topic_id) and not self.unusable,
            "destinations": found,
            "totals": {
                "senders": {each.name: each.sender_totals() for each in self.members},
                "removed_segments": 0,
                "attempts": {name: own.figures() for name, own in self._attempts.items()},
                "cluster_retries": {each.name: each.retries for each in self.members},
            },
        }
