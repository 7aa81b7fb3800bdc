"""One partition of the topic as the home of a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pixelfast.deliver.batches import Cut
from pixelfast.deliver.cluster.checkpoint import Checkpoint
from pixelfast.deliver.cluster.dead_index import DeadLetterIndex
from pixelfast.deliver.cluster.dead_writer import DeadLetterWriter, DeadTopic
from pixelfast.deliver.cluster.log import PartitionLog, place_at
from pixelfast.deliver.cluster.store import (
    PartitionState,
    PartitionStore,
    batch_id,
)
from pixelfast.deliver.dead import DeadLetterLimits
from pixelfast.deliver.event_log import EventLog
from pixelfast.deliver.progress import COUNTED, accounted_events
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["PartitionHome"]


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
        dead: DeadTopic,
        dead_index: DeadLetterIndex,
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
        self._dead_index = dead_index
        self._select = select_now
        self._store: PartitionStore | None = None

    async def claim(
        self, pause: Callable[[], Any], on_claimed: Callable[[Exception], None]
    ) -> bool:
        """Do nothing: the group has assigned the partition."""
        del pause, on_claimed
        return True

    def release(self) -> None:
        """Do nothing: the group revokes the partition."""

    def open_store(self) -> PartitionStore:
        self._store = PartitionStore(
            self._partition,
            self._topic_id,
            self._checkpoint,
            self._messages,
            self._state,
            self._select,
        )
        return self._store

    def dead_letters(
        self, limits: DeadLetterLimits, log: Any, timings: Timings, clock: DeliveryClock
    ) -> DeadLetterWriter:
        del timings
        is_keeper = self._partition == 0  # the one partition that every topic has
        return DeadLetterWriter(
            self._dead, self._dead_index, self._destination, limits, log, clock, is_keeper=is_keeper
        )

    def batch_id(self, cut: Cut) -> str:
        (bounds,) = cut.ranges
        start, stop = place_at(bounds.start), place_at(bounds.stop)
        return batch_id(self._topic_id, self._partition, start, stop)

    def note_working(self) -> None:
        """Do nothing: no other process decides by that."""

    def stored_figures(
        self, end_numbers: Mapping[int, int] | None, clock: DeliveryClock
    ) -> dict[str, float]:
        del end_numbers, clock
        return self.committed_figures()

    @property
    def totals(self) -> Mapping[str, int]:
        """The totals when the partition was assigned."""
        return self._checkpoint.totals

    def committed_figures(self) -> dict[str, Any]:
        """Return the figures of the last commit."""
        last = self._store.last if self._store is not None else self._checkpoint
        figures = dict.fromkeys((*COUNTED, "stored"), 0) | last.totals
        return figures | {"pending": max(0, figures["stored"] - accounted_events(figures))}
