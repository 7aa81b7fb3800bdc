"""The state of a runner of one partition, kept in the commits of its consumer group.

The committed offset is that of the first frame with an unsettled event, see `checkpoint`. Parts of
a batch are not recorded: if the partition gets another owner, the whole batch is sent again. The
outcomes of a batch are therefore added to the totals when all of its parts are settled.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

import structlog

from pixelfast.backoff import Backoff
from pixelfast.deliver.batches import Range, read_ranges
from pixelfast.deliver.cluster.checkpoint import (
    Checkpoint,
    Place,
    PlannedBatch,
    encode,
    room_for,
    topic_mark,
)
from pixelfast.deliver.cluster.log import PartitionLog, place_at, position_at
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.store import Changes
from pixelfast.errors import PixelfastError
from pixelfast.spool import Position

__all__ = ["Commit", "PartitionLost", "PartitionState", "PartitionStore", "batch_id"]

Commit = Callable[[int, str], bool]
"""Commits an offset with its metadata; returns False if that may be retried.

Raises PartitionLost if the consumer does not own the partition any more.
"""
_RETRY_S, _MAX_RETRY_S = 0.2, 5.0
_EXPIRED = "expired"


class PartitionLost(PixelfastError):
    """Another consumer owns the partition, or soon will."""


@dataclass(slots=True)
class _Batch:
    """A planned batch.

    Attributes:
        root: the id of the whole batch.
        plans: the ids of the plans of its parts that are not settled.
        counted: the outcomes of its settled parts, by the names of the totals.
    """

    start: Place
    stop: Place
    checksum: int
    root: str
    plans: set[str] = field(default_factory=set)
    counted: Counter[str] = field(default_factory=Counter)

    @property
    def is_settled(self) -> bool:
        return not self.plans

    def planned(self) -> PlannedBatch:
        return PlannedBatch(self.start, self.stop, self.checksum, self.is_settled)


def batch_id(topic_id: str, partition: int, start: Place, stop: Place) -> str:
    """Return the id of a batch, which is the same for every owner of the partition.

    >>> len(batch_id("AAAAAAAAAAAAAAAAAAAAAQ", 3, Place(7), Place(9, 2)))
    32
    """
    bounds = f"{topic_id} {partition} {start.offset} {start.skip} {stop.offset} {stop.skip}"
    return blake2b(bounds.encode(), digest_size=16).hexdigest()


def _known(totals: Counter[str]) -> dict[str, int]:
    """Return the totals that are not 0.

    `dead` may be negative: dead letters of other partitions are replayed, too.
    """
    return {name: total for name, total in totals.items() if total}


def _room(checkpoint: Checkpoint) -> int:
    # `_checkpoint` may add one for events that were filtered out.
    return max(0, room_for(checkpoint) - 1)


class PartitionState:
    """Whether this process may still commit the state of a partition."""

    def __init__(self, commit: Commit, backoff: Backoff | None = None) -> None:
        self._commit = commit
        self._backoff = backoff or Backoff(_RETRY_S, _MAX_RETRY_S)
        self._lock = threading.Lock()  # held during a commit
        self._is_revoked = threading.Event()

    @property
    def is_revoked(self) -> bool:
        return self._is_revoked.is_set()

    @property
    def is_committing(self) -> bool:
        """Whether a commit is under way, which may have begun before the partition was revoked."""
        return self._lock.locked()

    def revoke(self) -> None:
        """Prevent all commits from now on, but not one that is under way."""
        self._is_revoked.set()

    def commit(self, offset: int, metadata: str) -> None:
        """Commit an offset; retry until that succeeds. Blocks.

        Raises:
            PartitionLost: the partition was revoked.
        """
        while True:
            with self._lock:
                if self._is_revoked.is_set():
                    raise PartitionLost("the partition was revoked")
                if self._commit(offset, metadata):
                    self._backoff.reset()
                    return
            self._is_revoked.wait(self._backoff.next_s())


class PartitionStore:
    """The state of one partition, for its runner. Every method blocks.

    Attributes:
        last: the last checkpoint that was committed.
    """

    def __init__(
        self,
        partition: int,
        topic_id: str,
        checkpoint: Checkpoint,
        log: PartitionLog,
        state: PartitionState,
        selection: Callable[[], Selection],
    ) -> None:
        """Continue from a checkpoint; read the frames of its planned batches.

        `selection` returns the events that the destination accepts, which no checkpoint records.
        """
        self.last = checkpoint
        self._partition = partition
        self._topic_id = topic_id
        self._log = log
        self._state = state
        self._logger = structlog.get_logger("deliver").bind(partition=partition)
        self._after = checkpoint.after
        self._totals = Counter(checkpoint.totals)
        self._batches: dict[str, _Batch] = {}  # by root, in order
        self._roots: dict[str, str] = {}  # by the id of a plan
        self._plans: list[Plan] = []
        self._room = _room(checkpoint)
        self._resume(checkpoint, selection())

    def _resume(self, checkpoint: Checkpoint, selection: Selection) -> None:
        """Restore the plans of the batches that are not settled."""
        began_s = time.monotonic()
        oldest_ms: dict[str, int] = {}
        for each in checkpoint.batches:
            root = batch_id(self._topic_id, self._partition, each.start, each.stop)
            self._batches[root] = _Batch(each.start, each.stop, each.checksum, root)
        unsettled = [
            (own, each)
            for own, each in zip(self._batches.values(), checkpoint.batches, strict=True)
            if not each.is_settled
        ]
        for frame in self._log.replay(self._after.offset):
            for own, _ in unsettled:
                if own.start.offset <= frame.offset <= own.stop.offset:
                    oldest_ms.setdefault(own.root, frame.received_ms)
        for sequence, (own, _) in enumerate(unsettled, 1):
            bounds = Range(self._partition, position_at(own.start), position_at(own.stop))
            found = read_ranges(self._log, [bounds], selection)
            if not found.events:
                self._logger.error("batch_missing", batch=own.root)
                continue
            plan = Plan(
                id=own.root,
                root=own.root,
                sequence=sequence,
                events=found.events,
                size_bytes=found.size_bytes,
                checksum=own.checksum,
                oldest_ms=oldest_ms.get(own.root, 0),
                ranges=[bounds],
                selection=selection,
            )
            self._note_planned(plan)
            self._plans.append(plan)
        self._count_changed(checkpoint, sum(plan.events for plan in self._plans))
        if checkpoint.batches:
            self._logger.info(
                "partition_resumed",
                offset=checkpoint.place.offset,
                planned=len(self._plans),
                seconds=round(time.monotonic() - began_s, 3),
            )

    def _count_changed(self, checkpoint: Checkpoint, found: int) -> None:
        """Count the difference between the planned events, which count as stored, and those found.

        Retention has deleted the missing ones, unless the destination accepts fewer events than
        before. More events are found if it accepts more, or if a frame that was settled in part was
        deleted and a copy of it was not.
        """
        changed = checkpoint.pending - found
        if not changed or not checkpoint.batches:
            return
        if changed < 0:
            self._totals["repeated"] -= changed
        elif self._log.has(checkpoint.place.offset):
            self._totals["filtered"] += changed
        else:
            self._totals[_EXPIRED] += changed
            self._log.note_deleted(changed)

    # --- what the runner reads when it starts ------------------------------------------------

    def cursors(self) -> dict[int, Position]:
        return {self._partition: position_at(self._after)}

    def plans(self) -> list[Plan]:
        return self._plans

    def numbers(self) -> dict[int, int]:
        return {self._partition: self._totals["stored"]}

    def memory(self) -> dict[str, object]:
        """Return nothing: commits have no space for what a destination asks to remember."""
        return {}

    def counters(self) -> dict[str, int]:
        return _known(self._totals)

    @property
    def room(self) -> float:
        """How many more batches may be planned, so that the metadata of commits holds them."""
        return self._room

    # --- changes -----------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        """Commit the changes.

        Raises:
            PartitionLost: the partition was revoked.
        """
        for plan in changes.planned:
            self._note_planned(plan)
        self._count(changes)
        for identity in changes.ended:
            root = self._roots.pop(identity, "")
            if root in self._batches:
                self._batches[root].plans.discard(identity)
        if self._partition in changes.after:
            self._after = place_at(changes.after[self._partition])
        if self._partition in changes.numbers:
            self._totals["stored"] = changes.numbers[self._partition]
        checkpoint = self._checkpoint()
        self._state.commit(checkpoint.place.offset, encode(checkpoint))
        self.last = checkpoint
        self._room = _room(checkpoint)

    def _note_planned(self, plan: Plan) -> None:
        if plan.dead_letters is not None:
            return  # dead letters are not events of the partition
        if plan.root not in self._batches:
            bounds = plan.ranges[0]
            start, stop = place_at(bounds.start), place_at(bounds.stop)
            self._batches[plan.root] = _Batch(start, stop, plan.checksum, plan.root)
        self._batches[plan.root].plans.add(plan.id)
        self._roots[plan.id] = plan.root

    def _count(self, changes: Changes) -> None:
        """Add what was counted to the totals, or to the batches that it belongs to."""
        left = Counter(changes.counted)
        for root, counted in changes.by_batch.items():
            if root in self._batches:
                self._batches[root].counted.update(counted)
                left.subtract(counted)
        left[_EXPIRED] += left.pop("missing", 0)  # retention has deleted these events
        self._totals.update(left)

    def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint to commit, and forget the batches before it."""
        for batch in self._batches.values():
            if batch.is_settled:
                self._totals.update(batch.counted)
                batch.counted.clear()
        ordered = sorted(self._batches.values(), key=lambda each: (each.start, each.stop))
        unsettled = [each.start for each in ordered if not each.is_settled]
        place = min(unsettled, default=self._after)
        planned: list[PlannedBatch] = []
        for batch in ordered:
            if batch.start < place:
                del self._batches[batch.root]
            else:
                planned.append(batch.planned())
        end = planned[-1].stop if planned else place
        if end < self._after:  # the events up to there were filtered out
            planned.append(PlannedBatch(end, self._after, 0, is_settled=True))
        history = self._log.history
        slots = history.commit(place.offset)
        totals = Counter(self._totals)
        totals.update(history.passed)
        mark = topic_mark(self._topic_id)
        return Checkpoint(place, planned, _known(totals), slots, mark)

    def close(self) -> None:
        """Do nothing: the consumer belongs to all partitions."""
