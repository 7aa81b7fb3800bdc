"""A partition as the log of a runner, and its state in committed offsets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pixelfast.deliver.batches import BatchLimits, Cut
from pixelfast.deliver.cluster.checkpoint import Checkpoint, Place, decode
from pixelfast.deliver.cluster.log import PartitionLog, place_at
from pixelfast.deliver.cluster.store import PartitionLost, PartitionState, PartitionStore, batch_id
from pixelfast.deliver.cutter import Cutter
from pixelfast.deliver.plans import Plan
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.store import Changes
from pixelfast.deliver.tasks import Task
from tests.deliver.cluster.partitions import Message, Partition, Produced, Slot
from tests.deliver.spools import event

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
        assert totals.get("stored", 0) == settled + sum(plan.events for plan in self.plans)
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


def new_owner(partition: Partition, **options: object) -> Owner:
    return Owner(partition, Checkpoint(Place(0)), **options)  # type: ignore[arg-type]


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


@settings(deadline=None)
@given(partitions(), st.data())
def test_each_event_is_settled_once_whoever_owns_the_partition(
    drawn: tuple[Partition, int], data: st.DataObject
) -> None:
    partition, events = drawn
    owner = new_owner(partition, limits=BatchLimits(data.draw(st.integers(1, 9)), 10**6, 0.0))
    settled: list[int] = []
    for action in data.draw(st.lists(st.sampled_from(["cut", "settle", "replace"]))):
        if action == "cut":
            owner.plan(owner.cut())
        elif action == "settle" and owner.plans:
            settled += owner.settle(data.draw(st.sampled_from(owner.plans)))
        elif action == "replace":
            planned = {plan.id: plan.checksum for plan in owner.plans}
            owner = owner.successor()
            assert planned == {plan.id: plan.checksum for plan in owner.plans}
    owner = owner.successor()
    settled += owner.deliver_rest()
    assert list(range(events)) == sorted(settled)
    if events:
        offset, metadata = owner.commits[-1] if owner.commits else (0, "")
        if metadata:
            checkpoint = decode(metadata, offset)
            assert (len(partition.messages), []) == (offset, checkpoint.batches)
            frames = {bytes(each.value()) for each in partition.messages}
            copies = len(partition.messages) - len(frames)
            assert copies == checkpoint.totals.pop("duplicate_frames", 0)
            assert {"stored": events, "delivered": events} == checkpoint.totals


def test_events_that_are_filtered_out_are_counted_once_by_several_owners() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(*(slot.frame(event(n), source="web") for n in range(2)))
    partition.produce(*(slot.frame(event(n), source="mail") for n in range(2, 5)))
    owner = new_owner(partition, selection=Selection(excluded=("mail",)))
    owner.cutter.limits = BatchLimits(2, 10**6, 0.0)
    plan = owner.plan(owner.cut())
    while (cut := owner.cut()).after:  # a slow cut ends early
        owner.plan(cut)
    assert plan is not None
    for _ in range(3):
        owner = owner.successor()
        assert not owner.cut().after
    assert [0, 1] == owner.settle(owner.plans[0])
    offset, metadata = owner.commits[-1]
    assert 5 == offset
    assert {"stored": 5, "delivered": 2, "filtered": 3} == decode(metadata, offset).totals


def test_parts_of_a_batch_count_only_when_all_of_them_are_settled() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(slot.frame(*map(event, range(4))))
    owner = new_owner(partition)
    cut = owner.cut()
    (bounds,) = cut.ranges
    name = batch_id(TOPIC_ID, PARTITION, place_at(bounds.start), place_at(bounds.stop))
    task = Task.of_cut(cut, 1, Selection(), name)
    owner.store.commit(Changes(planned=[task.plan], after=cut.after, numbers=cut.numbers))
    parts = [each.plan for each in task.divided([range(2), range(2, 4)])]
    owner.store.commit(Changes(planned=parts, ended=[task.plan.id]))
    changes = Changes(ended=[parts[0].id])
    changes.count("delivered", 2, name)
    owner.store.commit(changes)
    successor = owner.successor()
    assert {"stored": 4} == successor.store.counters()
    assert [0, 1, 2, 3] == successor.read(successor.plans[0])
    changes = Changes(ended=[parts[1].id])
    changes.count("dead", 2, name)
    owner.store.commit(changes)
    assert {"stored": 4, "delivered": 2, "dead": 2} == owner.successor().store.counters()
    assert [] == owner.successor().plans


def test_events_that_retention_deleted_count_as_expired() -> None:
    partition, slot, other = Partition(), Slot(NODES[0]), Slot(NODES[1])
    partition.produce(slot.frame(event(0)), other.frame(event(1)))
    owner = new_owner(partition)
    assert [0, 1] == owner.deliver_rest()
    partition.produce(*(slot.frame(event(n), event(n)) for n in range(3)))
    partition.produce(slot.frame(event(7)), other.frame(event(8)))
    partition.start = 5
    successor = owner.successor()
    assert [7, 8] == successor.deliver_rest()
    expected = {"stored": 10, "delivered": 4, "expired": 6}
    assert expected == successor.successor().store.counters()


def partition_with_plans(slots: int = 1, planned: int = 8) -> tuple[Partition, list[Slot], Owner]:
    """Return a partition with frames of 2 planned events, after an event that was delivered."""
    partition, own = Partition(), [Slot(node) for node in NODES[:slots]]
    partition.produce(*(slot.frame(event(0)) for slot in own))
    owner = new_owner(partition)
    owner.deliver_rest()
    for n in range(planned // 2):
        partition.produce(own[n % slots].frame(event(n), event(n)))
    owner = Owner(partition, owner.successor().checkpoint, BatchLimits(2, 10**6, 0.0))
    while owner.plan(owner.cut()):
        pass
    assert planned == sum(plan.events for plan in owner.plans)
    return partition, own, owner


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("kept", [0, 2, 4])
def test_planned_events_that_retention_deleted_expire_once(slots: int, kept: int) -> None:
    partition, own, owner = partition_with_plans(slots)
    partition.start = slots + 4 - kept // 2
    for _ in range(2):
        owner = owner.successor()
        expected = {"stored": slots + 8, "delivered": slots, "expired": 8 - kept}
        assert expected == owner.accounts()
        assert slots + 8 == owner.log.next_number
    partition.produce(*(each.frame(event(9), event(9)) for each in own))
    partition.start = max(partition.start, slots + 3)
    for _ in range(3):
        owner = owner.successor()
        owner.accounts()
        owner.deliver_rest()
    left = min(kept, 2)
    assert {
        "stored": 8 + 3 * slots,
        "delivered": left + 3 * slots,
        "expired": 8 - left,
    } == owner.accounts()


@pytest.mark.parametrize("slots", [1, 2])
def test_events_after_planned_ones_expire_too_if_retention_deleted_them(slots: int) -> None:
    partition, own, owner = partition_with_plans(slots)
    partition.produce(*(slot.frame(*map(event, range(5))) for slot in own))
    partition.produce(*(slot.frame(event(9)) for slot in own))
    partition.start = 4 + 2 * slots
    for _ in range(2):
        owner = owner.successor()
        assert {"stored": 8 + slots, "delivered": slots, "expired": 8} == owner.accounts()
    owner.deliver_rest()
    expected = {"stored": 8 + 7 * slots, "delivered": 2 * slots, "expired": 8 + 5 * slots}
    assert expected == owner.accounts() == owner.successor().accounts()


def test_a_frame_that_retention_deleted_after_a_part_of_it_was_planned_expires_once() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(slot.frame(event(0)))
    owner = new_owner(partition)
    assert [0] == owner.deliver_rest()
    partition.produce(slot.frame(*map(event, range(8))))
    owner = owner.successor()
    assert owner.plan(owner.cut()), "5 of 8 events"
    partition.produce(slot.frame(event(9)))
    partition.start = 2
    owner = owner.successor()
    assert {"stored": 6, "delivered": 1, "expired": 5} == owner.accounts()
    assert [9] == owner.deliver_rest()
    assert {"stored": 10, "delivered": 2, "expired": 8} == owner.accounts()


@pytest.mark.parametrize(
    ("before", "now"), [(ALL, Selection(excluded=("mail",))), (Selection(excluded=("mail",)), ALL)]
)
def test_planned_events_that_a_new_selection_changes_are_accounted_for(
    before: Selection, now: Selection
) -> None:
    partition, slot = Partition(), Slot(NODES[0])
    for n, source in enumerate(["web", "mail", "mail", "web"]):
        partition.produce(slot.frame(event(n), source=source))
    owner = new_owner(partition, selection=before)
    assert owner.plan(owner.cut())
    owner.selection = now
    owner = owner.successor()
    taken = sum(plan.events for plan in owner.plans)
    assert 4 - taken == owner.accounts().get("filtered", 0)


@settings(deadline=None)
@given(partitions(), st.data())
def test_accounts_are_complete_whatever_retention_deletes(
    drawn: tuple[Partition, int], data: st.DataObject
) -> None:
    partition, _ = drawn
    owner = new_owner(partition, limits=BatchLimits(data.draw(st.integers(1, 9)), 10**6, 0.0))
    actions = st.sampled_from(["cut", "settle", "delete"])
    for action in data.draw(st.lists(actions)):
        if action == "cut":
            owner.plan(owner.cut())
        elif action == "settle" and owner.plans:
            owner.end(data.draw(st.sampled_from(owner.plans)))
        elif action == "delete":
            partition.start = data.draw(st.integers(partition.start, len(partition.messages)))
            owner = owner.successor()
        owner.accounts()
    owner = owner.successor()
    for plan in list(owner.plans):
        owner.end(plan)
    owner.deliver_rest()
    accounts = owner.accounts()
    assert accounts.get("stored", 0) == owner.log.next_number


def test_a_message_without_a_valid_frame_is_skipped() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    damaged = slot.frame(event(0))
    damaged.value = damaged.value[:-9] + b"X" + damaged.value[-8:]
    foreign = Produced([], b"hello")
    partition.produce(damaged, foreign, slot.frame(event(1)))
    with capture_logs() as logs:
        owner = new_owner(partition)
        assert [1] == owner.deliver_rest()
    assert [0] == [each["offset"] for each in logs if each["event"] == "message_invalid"]
    offset, metadata = owner.commits[-1]
    assert (3, 2) == (offset, decode(metadata, offset).totals["invalid_messages"])
    owner = owner.successor()
    partition.produce(foreign, slot.frame(event(2)), foreign)
    owner.log.add(partition.messages[3:])
    assert [2] == owner.deliver_rest()
    offset, metadata = owner.commits[-1]
    assert (5, 3) == (offset, decode(metadata, offset).totals["invalid_messages"])


def test_a_frame_of_a_later_version_ends_the_log_until_an_upgrade() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    later = slot.frame(event(1))
    later.value = b"PXF2" + later.value[4:]
    partition.produce(slot.frame(event(0)), later, slot.frame(event(2)))
    with capture_logs() as logs:
        owner = new_owner(partition)
        assert [0] == owner.deliver_rest()
        owner.log.add([])
    reason = "a frame of version 2; this pixelfast reads version 1: upgrade it"
    assert [(1, reason)] == [
        (each["offset"], each["error"]) for each in logs if each["event"] == "message_held"
    ]
    assert (reason, 1) == (owner.log.held, owner.commits[-1][0])
    assert owner.log.waiting_bytes > 0


def test_a_batch_is_read_again_although_the_next_message_is_not_valid() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(slot.frame(event(0)))
    owner = new_owner(partition)
    plan = owner.plan(owner.cut())
    partition.produce(Produced([], b"garbage"), slot.frame(event(1)))  # not seen by the reader yet
    assert plan is not None
    assert [0] == owner.read(plan)


@pytest.mark.parametrize("value", [b"PXF0", b"PXFX" + bytes(60), b"PXF1", b"", b"PXF"])
def test_garbage_does_not_end_the_log(value: bytes) -> None:
    partition, slot = Partition(), Slot(NODES[0])
    headers = slot.frame(event(0)).headers
    partition.produce(Produced(headers, value), slot.frame(event(1)))
    owner = new_owner(partition)
    assert [1] == owner.deliver_rest()
    assert "" == owner.log.held


def test_events_count_as_stored_when_their_messages_arrive() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(slot.frame(*map(event, range(3))), slot.frame(event(3)))
    partition.produce(partition.messages[0].produced)  # a copy
    partition.produce(Produced([], b"garbage"))
    owner = new_owner(partition)
    assert (4, 0) == (owner.log.next_number, owner.log.unread_events)
    assert owner.log.waiting_bytes > 0
    owner.deliver_rest()
    assert 0 == owner.log.waiting_bytes, "copies and garbage do not wait"


def test_events_that_have_not_arrived_are_counted_by_the_numbers_of_the_newest_ones() -> None:
    partition, (one, two) = Partition(), (Slot(node) for node in NODES)
    for number in range(10):
        partition.produce(one.frame(event(number), event(number)), two.frame(event(number)))
    messages, partition.messages = partition.messages, partition.messages[:4]
    owner = new_owner(partition)
    owner.log.look_ahead(messages[-2:])
    assert (6, 24) == (owner.log.next_number, owner.log.unread_events)
    unknown = new_owner(Partition())
    unknown.log.look_ahead(messages[-2:])
    assert 3 == unknown.log.unread_events
    owner.log.look_ahead([Message(99, Produced([], b"garbage"))])
    owner.log.add(messages[4:])
    assert (30, 0) == (owner.log.next_number, owner.log.unread_events)


def test_a_batch_is_only_planned_if_its_commit_has_room() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(*(slot.frame(event(n)) for n in range(400)))
    owner = new_owner(partition, limits=BatchLimits(1, 10**6, 0.0))
    while owner.store.room > 0:
        owner.plan(owner.cut())
    planned = len(owner.plans)
    assert 60 < planned < 400
    successor = owner.successor()
    assert (planned, 0) == (len(successor.plans), successor.store.room)
    for plan in successor.plans[:36]:
        successor.settle(plan)
    assert 5 < successor.store.room < 36


def test_nothing_is_committed_after_the_partition_was_revoked() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(slot.frame(event(0)))
    owner = new_owner(partition)
    owner.state.revoke()
    with pytest.raises(PartitionLost):
        owner.plan(owner.cut())
    assert [] == owner.commits


def test_frames_that_were_given_back_are_read_again() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    partition.produce(*(slot.frame(event(n)) for n in range(6)))
    owner = new_owner(partition, limits=BatchLimits(2, 10**6, 0.0))
    found = []
    while (cut := owner.cut()).after:
        found += cut.batch().lines()
        owner.cutter.release()
    assert [event(n) for n in range(6)] == found


def test_a_machine_that_continues_from_an_old_copy_of_its_data_loses_no_event() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    first = slot.frame(event(0))
    old = replace(slot)
    partition.produce(first, *(slot.frame(event(n)) for n in (1, 2)))
    owner = new_owner(partition)
    assert [0, 1, 2] == owner.deliver_rest()
    old.received_ms += 60_000
    restored = [old.frame(event(n)) for n in (3, 4)]
    partition.produce(*restored, first, *restored)  # with copies
    with capture_logs() as logs:
        assert [3, 4] == owner.successor().deliver_rest()
    assert ["positions_reused"] == [each["event"] for each in logs if "positions" in each["event"]]
