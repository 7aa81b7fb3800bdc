"""Limits of waiting events, by bytes and by time, and a spool that is full until space is freed."""

from __future__ import annotations

import pytest

from tests.spool.tools import Spool


def test_the_limit_of_waiting_bytes_is_exact() -> None:
    spool = Spool(max_waiting_bytes=100)
    assert spool.add(b"x" * 49) == 1
    assert spool.writer.waiting_bytes == 50
    assert spool.rejection_of(b"y" * 50) == "spool-overloaded"
    assert spool.add(b"y" * 49) == 2
    assert spool.writer.waiting_bytes == 100
    assert spool.rejection_of(b"") == "spool-overloaded"
    spool.turn()
    assert spool.rejection_of(b"") == "spool-overloaded"  # the event being written also waits
    spool.settle()
    assert spool.add(b"") == 3


def test_an_event_larger_than_the_limit_is_always_rejected() -> None:
    spool = Spool(max_waiting_bytes=100)
    assert spool.add(b"x" * 100) == 0
    assert spool.add(b"x" * 99) == 1


def test_one_too_large_event_does_not_reject_the_small_ones() -> None:
    spool = Spool(max_waiting_bytes=100)
    assert spool.add(b"x" * 200) == 0
    assert spool.writer.rejection == ""
    assert spool.add(b"x") == 1


def test_an_event_that_waits_too_long_is_reported_as_not_stored() -> None:
    spool = Spool(max_wait_s=2.0)
    spool.add(b"in flight")
    spool.turn()
    spool.add(b"open")
    spool.loop.advance(1.99)
    assert spool.ears.calls == []
    spool.loop.advance(0.3)
    assert [b"in flight", b"open"] == spool.ears.not_stored
    assert spool.writer.rejection == "spool-overloaded"
    assert spool.rejection_of(b"more") == "spool-overloaded"


def test_a_late_commit_that_succeeds_tells_no_waiter_twice() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.loop.advance(3)
    assert [b"1"] == spool.ears.not_stored
    assert spool.writer.waiting_bytes == 2  # the disk still has it
    spool.disk.complete()
    spool.settle()
    assert spool.ears.heard == {b"1": False}
    assert (1, 0) == (spool.writer.stored_events, spool.writer.waiting_bytes)


def test_events_are_accepted_again_once_the_disk_has_caught_up() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.loop.advance(3)
    assert spool.add(b"2") == 0
    spool.disk.complete()
    spool.loop.advance(0.3)
    assert spool.writer.rejection == ""
    assert spool.add(b"3") == 2
    spool.settle()
    assert [b"3"] == spool.ears.stored


def test_a_late_commit_that_fails_tells_no_waiter_twice() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.loop.advance(3)
    spool.disk.complete(5)
    spool.settle()
    spool.loop.advance(5)
    spool.settle()
    assert spool.ears.heard == {b"1": False}
    assert spool.writer.waiting_bytes == 0


def test_only_the_oldest_events_of_a_long_queue_are_given_up() -> None:
    spool = Spool(segment_bytes=8192, max_wait_s=2.0)
    old = spool.add_many(30, size=300)
    spool.turn()
    spool.loop.advance(1.5)
    young = spool.add_many(30, size=300, first=30)
    spool.loop.advance(1.0)
    heard = set(spool.ears.heard)
    assert set(old[:20]) <= heard
    assert set(young[-20:]).isdisjoint(heard)
    spool.settle()
    assert set(young[-20:]) <= set(spool.ears.stored)
    assert set(spool.ears.heard) == {*old, *young}
    assert spool.writer.waiting_bytes == 0


def test_a_writer_is_late_if_only_a_full_batch_waits_for_too_long() -> None:
    spool = Spool(segment_bytes=8192, is_slow=True, max_wait_s=2.0)
    old = spool.add_many(7, size=300)  # as much as a commit takes, and no segment for it
    spool.loop.advance(1.5)
    spool.add(b"young")
    spool.loop.advance(0.8)
    assert old == spool.ears.not_stored
    assert spool.writer.rejection == "spool-overloaded"


def test_waiters_are_told_even_if_no_segment_can_be_created() -> None:
    spool = Spool(is_slow=True)
    events = spool.add_many(3)
    spool.loop.advance(2.3)
    assert events == spool.ears.not_stored
    assert not spool.writer.is_ready
    spool.settle()
    spool.loop.advance(0.3)
    assert spool.writer.is_ready


def test_a_full_spool_rejects_events_and_stores_waiting_ones() -> None:
    spool = Spool(max_bytes=10_000)
    spool.add_many(50, size=100)
    spool.disk.other_bytes = 10_000
    spool.loop.advance(1.3)
    assert spool.writer.rejection == "spool-full"
    assert spool.rejection_of(b"more") == "spool-full"
    spool.settle()
    assert len(spool.ears.stored) == 50


def test_a_spool_fills_up_with_its_own_events() -> None:
    spool = Spool(max_bytes=10_000)
    taken = 0
    for number in range(1000):
        if spool.add(b"%0100d" % number) == 0:
            break
        taken += 1
        spool.settle()
        spool.loop.advance(0.1)
    assert spool.writer.rejection == "spool-full"
    assert 60 < taken < 80
    assert len(spool.ears.stored) == taken


def test_a_spool_accepts_events_again_when_delivery_has_freed_space() -> None:
    spool = Spool(max_bytes=10_000)
    spool.disk.other_bytes = 20_000
    spool.loop.advance(1.1)
    assert not spool.writer.is_ready
    spool.disk.other_bytes = 0
    spool.loop.advance(1.3)
    assert (True, "") == (spool.writer.is_ready, spool.writer.rejection)
    assert spool.add(b"1") == 1


def test_a_spool_that_is_full_at_the_start_rejects_from_the_start() -> None:
    # The used space is measured from the files, so no event is accepted in the first second either.
    spool = Spool(max_bytes=1000, other_bytes=1000)
    assert spool.writer.rejection == "spool-full"


def test_waiting_events_count_towards_the_limit() -> None:
    spool = Spool(max_bytes=10_000, is_slow=True)
    spool.loop.run_jobs()
    spool.turn()
    for number in range(1000):
        if spool.add(b"%0100d" % number) == 0:
            break
        spool.loop.advance(0.01)  # nothing is written
    assert spool.writer.rejection == "spool-full"
    assert spool.writer.waiting_bytes <= 14_000


@pytest.mark.parametrize("measured", [0, 20_000])
def test_a_measurement_replaces_the_calculated_size(measured: int) -> None:
    spool = Spool(max_bytes=10**6)
    spool.add_many(10)
    spool.settle()
    before = spool.writer.used_bytes
    spool.disk.other_bytes = measured
    spool.loop.advance(1.3)
    assert measured - 200 <= spool.writer.used_bytes - before <= measured + 200


@pytest.mark.parametrize(("on_full", "least"), [("reject", 1000), ("drop_oldest", 500)])
def test_events_are_rejected_until_the_disk_has_enough_space(on_full: str, least: int) -> None:
    spool = Spool(min_free=1000, on_full=on_full)
    for free, expected in [(least, ""), (least - 1, "disk-full"), (least, "")]:
        spool.disk.free_bytes = free
        spool.loop.advance(1.3)
        assert expected == spool.writer.rejection


def test_with_drop_oldest_events_are_accepted_up_to_a_tenth_above_the_limit() -> None:
    spool = Spool(max_bytes=10_000, on_full="drop_oldest")
    spool.disk.other_bytes = 10_800
    spool.loop.advance(1.3)
    assert spool.writer.rejection == ""
    spool.disk.other_bytes = 11_000
    spool.loop.advance(1.3)
    assert spool.writer.rejection == "spool-full"


def test_free_space_has_no_limit_by_default() -> None:
    spool = Spool(min_free=0)
    spool.disk.free_bytes = 0
    spool.loop.advance(1.3)
    assert spool.writer.rejection == ""


def test_changes_between_a_full_slot_and_a_full_disk_are_logged(
    logs: list[dict[str, object]],
) -> None:
    spool = Spool(max_bytes=10_000, min_free=1000)
    seen = []
    for other_bytes, free_bytes in [
        (0, 999),
        (20_000, 1000),
        (20_000, 999),  # both: delivery frees space in the slot
        (0, 999),
        (0, 1000),
    ]:
        spool.disk.other_bytes, spool.disk.free_bytes = other_bytes, free_bytes
        spool.loop.advance(1.3)
        seen.append((spool.writer.state, spool.writer.rejection))
    expected = ["disk-full", "spool-full", "spool-full", "disk-full"]
    assert [*(("full", each) for each in expected), ("open", "")] == seen
    told = [entry["event"] for entry in logs]
    assert ["disk_full", "spool_full", "disk_full", "spool_space_freed"] == told


@pytest.mark.parametrize("lacking", ["slot", "disk"])
def test_new_space_is_noticed_within_a_tenth_of_a_second(lacking: str) -> None:
    spool = Spool(max_bytes=10_000, min_free=1000)
    if lacking == "slot":
        spool.disk.other_bytes = 10_000
    else:
        spool.disk.free_bytes = 999
    spool.loop.advance(1.3)
    assert spool.writer.state == "full"
    for _ in range(20):
        spool.loop.advance(0.037)
        assert spool.writer.state == "full"
    spool.disk.other_bytes, spool.disk.free_bytes = 0, 2**40
    spool.loop.advance(0.1)
    assert spool.writer.state == "open"


def test_only_one_measurement_runs_at_a_time() -> None:
    spool = Spool(max_bytes=10_000, is_slow=True)
    spool.settle()
    spool.loop.advance(30)
    assert len(spool.loop.jobs) == 1
