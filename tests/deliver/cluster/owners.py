"""A process that owns a partition in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place, decode
from pixelfast.deliver.cluster.log import PartitionLog, place_at
from pixelfast.deliver.cluster.store import PartitionState, PartitionStore, batch_id
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.store import Changes
from pixelfast.deliver.tasks import Task
from tests.deliver.cluster.partitions import Partition, Produced, Slot
from tests.deliver.spools import event

__all__ = ["ALL", "NODES", "PARTITION", "TOPIC_ID", "Owner", "new_owner", "partitions"]

PARTITION = 5
TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAQ"
NODES = [bytes([n]) * 16 for n in (1, 2)]

LIMITS = BatchLimits(5, 10**6, 0.0)
ALL = Selection()


@dataclass
class Owner:
    """A process that owns the partition, from a commit on."""

    partition: Partition
    checkpoint: Checkpoint
    limits: BatchLimits = LIMITS
    selection: Selection = ALL
    commits: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = PartitionLog(PARTITION, self.checkpoint, self.partition.fetch)
        self.state = PartitionState(self._commit)
        self.store = PartitionStore(
            PARTITION, TOPIC_ID, self.checkpoint, self.log, self.state, lambda: self.selection
        )
        self.plans: list[Plan] = list(self.store.plans())
        self.cutter = Cutter(
            self.log, self.store.cursors(), self.limits, self.selection, self.store.numbers()
        )
        (start,) = self.store.cursors().values()
        first = max(start.offset, self.partition.start)
        self.log.add(self.partition.messages[first:])

    def _commit(self, offset: int, metadata: str) -> bool:
        self.commits.append((offset, metadata))
        return True

    def cut(self) -> Cut:
        self.cutter.cut()
        return self.cutter.close_batch()

    def plan(self, cut: Cut) -> Plan | None:
        """Plan a batch that was cut, and commit it."""
        changes = Changes(after=dict(cut.after), numbers=dict(cut.numbers))
        for name, events in cut.counts.items():
            changes.count(name, events)
        if cut.events:
            (bounds,) = cut.ranges
            name = batch_id(TOPIC_ID, PARTITION, place_at(bounds.start), place_at(bounds.stop))
            changes.planned.append(Task.of_cut(cut, 1, self.selection, name).plan)
        self.store.commit(changes)
        self.plans += changes.planned
        return changes.planned[0] if changes.planned else None

    def settle(self, plan: Plan) -> list[int]:
        """Commit that the events of a plan were delivered, and return their numbers."""
        events = self.read(plan)
        self.end(plan)
        return events

    def end(self, plan: Plan) -> None:
        changes = Changes(ended=[plan.id])
        changes.count("delivered", plan.events, plan.root)
        self.store.commit(changes)
        self.plans.remove(plan)

    def read(self, plan: Plan) -> list[int]:
        batch = plan.read_back(self.log)
        assert batch is not None, "the bytes are the same"
        return [json.loads(line)["n"] for line in batch.lines()]

    def accounts(self) -> dict[str, int]:
        """Return the totals; all events that count as stored are settled, or are planned."""
        totals = self.store.counters()
        outcomes = ("delivered", "dead", "filtered", "expired")
        settled = sum(totals.get(name, 0) for name in outcomes)
        known = totals.get("stored", 0) + totals.get("repeated", 0)
        assert known == settled + sum(plan.events for plan in self.plans)
        return totals

    def successor(self) -> Owner:
        """Return the next owner of the partition, which knows only the last commit."""
        checkpoint = self.checkpoint
        if self.commits:
            offset, metadata = self.commits[-1]
            checkpoint = decode(metadata, offset)
        return Owner(self.partition, checkpoint, self.limits, self.selection)

    def deliver_rest(self) -> list[int]:
        """Deliver all that is left, and return the numbers of the events."""
        found = [number for plan in list(self.plans) for number in self.settle(plan)]
        while (cut := self.cut()).after:
            if plan := self.plan(cut):
                found += self.settle(plan)
        return found


def new_owner(partition: Partition, **options: Any) -> Owner:
    return Owner(partition, Checkpoint(Place(0)), **options)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[Partition, int]:
    """Draw a partition, and how many events it has. Collectors may produce frames again."""
    partition = Partition(fetches=draw(st.integers(1, 4)))
    slots = [Slot(node, number) for node in NODES for number in (0, 1)]
    written: list[list[Produced]] = [[] for _ in slots]
    number = 0
    for _ in range(draw(st.integers(0, 25))):
        chosen = draw(st.integers(0, 3))
        slot, frames = slots[chosen], written[chosen]
        if draw(st.integers(0, 3)) == 0:  # a restart: from some frame on, all are produced again
            partition.produce(*frames[draw(st.integers(0, len(frames))) :])
            slot.next_segment()
        events = [event(n) for n in range(number, number + draw(st.integers(1, 7)))]
        number += len(events)
        frames.append(slot.frame(*events, source=draw(st.sampled_from(["web", "mail"]))))
        partition.produce(frames[-1])
    return partition, number
