"""A partition as the log of a runner, and its state in committed offsets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pixelfast.backoff import Backoff
from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.cluster.checkpoint import decode
from pixelfast.deliver.cluster.log import place_at
from pixelfast.deliver.cluster.store import PartitionLost, PartitionState, batch_id
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.store import Changes
from pixelfast.deliver.tasks import Task
from tests.deliver.cluster.owners import (
    NODES,
    PARTITION,
    TOPIC_ID,
    new_owner,
    partitions,
)
from tests.deliver.cluster.partitions import Message, Partition, Produced, Slot
from tests.deliver.spools import event


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


def test_a_commit_that_fails_is_retried_with_increasing_waits() -> None:
    limits: list[float] = []

    class Recorded(Backoff):
        def next_s(self, at_least_s: float = 0.0) -> float:
            limits.append(super().next_s(at_least_s))
            return 0.0

    failures = [True] * 4
    state = PartitionState(
        lambda *_: not (failures and failures.pop()), Recorded(1.0, 4.0, random=lambda: 1.0)
    )
    state.commit(7, "")
    assert [1.0, 2.0, 4.0, 4.0] == limits
    failures.append(True)
    state.commit(8, "")
    assert 1.0 == limits[-1]


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
    (told,) = (each for each in logs if each["event"] == "positions_reused")
    assert ("error", 3) == (told["log_level"], told["offset"])
    assert "stop that machine" in told["error"]
