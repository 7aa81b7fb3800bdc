"""A failing disk: one retry in a new segment, then rejections, then recovery."""

from __future__ import annotations

from errno import EDQUOT, EIO, ENOSPC
from typing import Any

import pytest

from tests.spool.tools import Spool


def stored(spool: Spool) -> list[bytes]:
    return [event for _, event in spool.disk.durable_events()]


def fail_twice(spool: Spool, error: int = EIO) -> None:
    spool.disk.complete(error)
    spool.disk.complete(error)
    spool.settle()


@pytest.mark.parametrize("error", [EIO, ENOSPC, EDQUOT])
def test_a_failed_commit_is_retried_in_a_new_segment(error: int) -> None:
    spool = Spool()
    events = spool.add_many(3)
    spool.turn()
    spool.disk.complete(error)
    assert spool.ears.calls == []
    spool.settle()
    assert [(events, 1, True)] == spool.ears.calls
    assert events == stored(spool)
    assert (False, None) == tuple(segment.retired for segment in spool.disk.segments[:2])
    assert (1, 1, "") == (spool.writer.failed_commits, spool.writer.commits, spool.writer.rejection)


def test_a_segment_with_a_failed_commit_is_never_synced_again() -> None:
    # The kernel has marked its pages clean, so a second sync would succeed and mean nothing. The
    # strict disk rejects any further use of the segment.
    spool = Spool()
    spool.add_many(2)
    spool.turn()
    spool.disk.complete(EIO, kept=10**6)
    spool.settle()
    for number in range(5):
        spool.add_many(2, first=2 + 2 * number)
        spool.settle()
        spool.loop.advance(1)
    assert {1} == spool.disk.failed
    assert 1 not in spool.disk.durable
    assert len(stored(spool)) == 12


def test_the_whole_batch_is_written_again_even_if_half_of_it_was_written() -> None:
    spool = Spool(names=["a", "b"])
    events = []
    for number in range(6):
        events.append(b"%050d" % number)
        spool.add(events[-1], number % 2)
    spool.turn()
    spool.disk.complete(ENOSPC, kept=100)
    spool.settle()
    assert sorted(events) == sorted(stored(spool))
    assert events == spool.ears.stored


def test_events_that_arrive_meanwhile_follow_in_order() -> None:
    spool = Spool()
    first = spool.add_many(2)
    spool.turn()
    second = spool.add_many(2, first=2)
    spool.disk.complete(EIO)
    third = spool.add_many(2, first=4)
    spool.settle()
    assert [*first, *second, *third] == stored(spool)
    assert [1, 3] == [first_ticket for _, first_ticket, _ in spool.ears.calls]


def test_after_the_second_failure_all_waiters_are_told() -> None:
    spool = Spool(segment_bytes=8192)
    events = spool.add_many(60, size=300)  # several batches
    spool.turn()
    spool.disk.complete(EIO)
    assert spool.ears.calls == []
    spool.disk.complete(EIO)
    assert events == spool.ears.not_stored
    assert (False, 0) == (spool.writer.is_ready, spool.writer.waiting_bytes)
    assert spool.rejection_of(b"more") == "disk-error"


@pytest.mark.parametrize(
    ("error", "expected"), [(EIO, "disk-error"), (ENOSPC, "disk-full"), (EDQUOT, "disk-full")]
)
def test_the_rejection_distinguishes_a_full_from_a_broken_disk(error: int, expected: str) -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    fail_twice(spool, error)
    assert expected == spool.writer.rejection


def test_it_works_again_a_second_later() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    fail_twice(spool)
    spool.loop.advance(0.9)
    assert spool.writer.rejection == "disk-error"
    spool.loop.advance(0.2)
    assert (True, "") == (spool.writer.is_ready, spool.writer.rejection)
    spool.add(b"2")
    spool.settle()
    assert [b"2"] == spool.ears.stored
    assert [b"2"] == stored(spool)


def test_each_failure_is_followed_by_its_own_recovery() -> None:
    spool = Spool()
    for number in range(5):
        assert spool.add(b"%d" % number) > 0
        spool.turn()
        fail_twice(spool)
        spool.loop.advance(2.1)
    assert len(spool.ears.not_stored) == 5
    assert len(spool.disk.failed) == 10
    spool.add(b"good")
    spool.settle()
    assert [b"good"] == spool.ears.stored


def test_a_success_between_two_failures_resets_the_count() -> None:
    spool = Spool()
    for number in range(6):
        spool.add(b"%d" % number)
        spool.turn()
        spool.disk.complete(EIO)
        spool.settle()
        spool.loop.advance(1)
        spool.settle()
    assert len(spool.ears.stored) == 6
    assert spool.writer.rejection == ""


@pytest.mark.parametrize(
    ("error", "expected"), [(EIO, "disk-error"), (ENOSPC, "disk-full"), (EDQUOT, "disk-full")]
)
def test_events_are_rejected_until_there_is_a_first_segment(error: int, expected: str) -> None:
    spool = Spool(is_slow=True)
    spool.add(b"1")
    spool.disk.create_errors = [OSError(error, "no")] * 3
    spool.settle()
    assert [b"1"] == spool.ears.not_stored
    assert (expected, False) == (spool.writer.rejection, spool.writer.is_ready)
    for _ in range(8):
        spool.loop.advance(0.5)
        spool.settle()
        if spool.writer.is_ready:
            break
    assert spool.disk.create_errors == []
    assert (True, "") == (spool.writer.is_ready, spool.writer.rejection)
    spool.add(b"2")
    spool.settle()
    assert [b"2"] == spool.ears.stored


def fill(spool: Spool) -> None:
    """Fill the segment so that another event of 400 bytes does not fit."""
    for number in range(4):
        spool.add_many(1, size=400, first=1000 + number)
        spool.settle()


def test_a_failure_to_create_the_next_segment_in_advance_rejects_nothing() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    spool.disk.create_errors = [OSError(ENOSPC, "no")] * 2
    spool.settle()
    assert (True, "") == (spool.writer.is_ready, spool.writer.rejection)
    events = spool.add_many(2)
    spool.settle()
    assert events == spool.ears.stored
    spool.loop.advance(1.1)
    spool.settle()
    spool.loop.advance(1.1)
    spool.settle()
    assert spool.disk.create_errors == []
    assert len(spool.disk.segments) == 2


def test_a_full_disk_is_reported_when_the_next_segment_is_needed() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    spool.disk.create_errors = [OSError(ENOSPC, "no") for _ in range(2)]
    spool.settle()
    fill(spool)
    spool.ears.heard.clear()
    events = spool.add_many(1, size=500)
    spool.settle()
    assert events == spool.ears.not_stored
    assert spool.writer.rejection == "disk-full"
    assert spool.rejection_of(b"more") == "disk-full"
    for _ in range(6):
        spool.loop.advance(0.5)
        spool.settle()
    assert (True, "") == (spool.writer.is_ready, spool.writer.rejection)
    spool.add(b"back")
    spool.settle()
    assert [b"back"] == spool.ears.stored
    assert b"back" in stored(spool)


def test_a_failed_commit_without_a_new_segment_is_given_up() -> None:
    spool = Spool(is_slow=True)
    spool.loop.run_job()
    spool.disk.create_errors = [OSError(ENOSPC, "no") for _ in range(3)]
    spool.settle()
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(ENOSPC)
    spool.add(b"2")
    spool.settle()
    assert [b"1", b"2"] == spool.ears.not_stored
    assert spool.writer.rejection == "disk-full"


def test_a_failed_commit_waits_for_the_segment_that_is_being_made() -> None:
    spool = Spool(is_slow=True)
    spool.loop.run_job()
    spool.turn()
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(EIO)
    spool.turn()
    assert spool.ears.calls == []
    spool.settle()
    assert [b"1"] == spool.ears.stored


def test_a_failed_separate_sync_closes_the_segment() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.settle()
    spool.loop.advance(1.1)
    assert spool.disk.is_sync_under_way
    spool.disk.complete(EIO)
    spool.settle()
    assert spool.disk.segments[0].retired is False
    spool.add(b"2")
    spool.settle()
    assert {b"1": True, b"2": True} == spool.ears.heard
    assert spool.writer.failed_commits == 1
    assert spool.writer.rejection == ""


def test_events_that_arrive_while_waiters_are_told_of_a_failure_are_told_too() -> None:
    # A connection reads its next request as soon as its response is sent.
    spool = Spool()
    more = [b"3", b"2"]
    spool.on_heard = lambda: more and spool.add(more.pop())
    spool.add(b"1")
    spool.turn()
    fail_twice(spool)
    spool.loop.advance(5)
    spool.settle()
    assert b"1" in spool.ears.not_stored
    assert set(spool.ears.tickets) == set(spool.ears.heard)
    assert spool.writer.waiting_bytes == 0


def test_failures_are_logged_with_their_segment(logs: list[Any]) -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    fail_twice(spool)
    spool.loop.advance(2)
    found = [(entry["event"], entry.get("segment")) for entry in logs]
    assert ("commit_failed", "0000000000000001.seg") in found
    assert ("commit_failed", "0000000000000002.seg") in found
    assert ("disk_recovered", None) in found


def test_a_segment_made_in_advance_survives_the_failure_of_others() -> None:
    # If it were replaced unused, every failure would use another 64 MiB of the disk.
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(EIO)
    spool.turn()
    spool.disk.complete(EIO)
    spool.loop.advance(3)
    assert spool.writer.rejection == ""
    left = [segment.fd for segment in spool.disk.segments if segment.retired is not None]
    assert left == [1, 2]


def make_full(spool: Spool) -> None:
    """A segment is needed and none can be made: the disk is full."""
    spool.disk.free_bytes = 2047
    spool.disk.create_errors = [OSError(ENOSPC, "no") for _ in range(2)]
    spool.settle()
    fill(spool)
    spool.add_many(1, size=500)
    spool.settle()
    assert (spool.writer.state, spool.writer.rejection) == ("failing", "disk-full")
    spool.disk.create_errors = [OSError(ENOSPC, "no") for _ in range(100)]


def live(spool: Spool, seconds: float) -> None:
    for _ in range(round(seconds / 0.01)):
        spool.loop.advance(0.01)
        spool.settle()


def test_new_space_on_a_full_disk_is_noticed_within_a_tenth_of_a_second() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    make_full(spool)
    live(spool, 0.3)
    spool.disk.create_errors.clear()
    spool.disk.free_bytes = 2048
    live(spool, 0.1)
    assert spool.writer.state == "open"
    spool.add(b"back")
    spool.settle()
    assert b"back" in stored(spool)


def test_a_full_disk_is_not_retried_more_often_while_nothing_changes() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    make_full(spool)
    live(spool, 5.05)
    assert len(spool.disk.create_errors) == 95
    assert spool.writer.state == "failing"


def test_early_attempts_do_not_change_the_attempts_of_every_second() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    make_full(spool)
    for n in range(5):
        live(spool, 0.2)
        spool.disk.free_bytes = 3000 + n  # something is free again, and yet no segment can be made
    before = len(spool.disk.create_errors)
    live(spool, 10)
    assert before - len(spool.disk.create_errors) in (10, 11)
