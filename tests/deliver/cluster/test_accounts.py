"""The accounts of a partition whose messages retention deletes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.selection import Selection
from tests.deliver.cluster.owners import (
    ALL,
    NODES,
    Owner,
    new_owner,
    partitions,
)
from tests.deliver.cluster.partitions import Partition, Slot
from tests.deliver.spools import event


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
    totals = owner.accounts()
    (plan,) = owner.plans
    assert 4 - plan.events == totals.get("filtered", 0) - totals.get("repeated", 0)


def test_a_copy_of_a_frame_that_retention_deleted_is_accounted_for() -> None:
    partition, slot = Partition(), Slot(NODES[0])
    first = slot.frame(*map(event, range(8)))
    partition.produce(first, first, slot.frame(event(8)))
    owner = new_owner(partition)
    for _ in range(2):
        owner.plan(owner.cut())
    owner.settle(owner.plans[0])
    partition.start = 1
    owner = owner.successor()
    assert {"stored": 9, "delivered": 5, "repeated": 5} == owner.accounts()


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
