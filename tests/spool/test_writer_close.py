"""Closing a writer: every waiting event is stored or reported as not stored, and closing ends."""

from __future__ import annotations

from errno import EIO, ENOSPC

import pytest

from tests.spool.tools import Closing, Spool


def check_closed(spool: Spool, closing: Closing) -> None:
    """Check that closing has ended, all waiters were told, and nothing is open."""
    assert closing.is_done, "close() hangs"
    assert set(spool.ears.tickets) == set(spool.ears.heard)
    assert spool.writer.waiting_bytes == 0
    assert spool.disk.is_closed
    assert spool.loop.readers == {}
    assert all(segment.retired is not None for segment in spool.disk.segments)
    stored = {event for _, event in spool.disk.durable_events()}
    assert set(spool.ears.stored) <= stored


def test_an_idle_writer_closes_at_once() -> None:
    spool = Spool()
    closing = Closing(spool)
    assert closing.is_done
    check_closed(spool, closing)


def test_waiting_events_are_stored_before_the_close() -> None:
    spool = Spool()
    events = spool.add_many(3)
    spool.turn()
    events += spool.add_many(3, first=3)
    closing = Closing(spool)
    assert not closing.is_done
    closing.settle()
    check_closed(spool, closing)
    assert events == spool.ears.stored


def test_events_of_the_same_turn_are_stored_too() -> None:
    spool = Spool()
    events = spool.add_many(3)
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)
    assert events == spool.ears.stored


def test_a_closing_writer_accepts_no_events() -> None:
    spool = Spool()
    spool.add(b"1")
    closing = Closing(spool)
    assert spool.rejection_of(b"2") == "shutting-down"
    assert not spool.writer.is_ready
    closing.settle()
    check_closed(spool, closing)
    assert spool.rejection_of(b"3") == "shutting-down"


def test_a_long_queue_is_stored_over_several_segments() -> None:
    spool = Spool(segment_bytes=8192)
    events = spool.add_many(100, size=300)
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)
    assert events == spool.ears.stored


def test_a_writer_that_waits_for_its_first_segment_closes() -> None:
    spool = Spool(is_slow=True)
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)


def test_events_that_wait_for_the_first_segment_are_stored() -> None:
    spool = Spool(is_slow=True)
    events = spool.add_many(3)
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)
    assert events == spool.ears.stored


def test_events_that_wait_for_the_next_segment_are_stored() -> None:
    spool = Spool(segment_bytes=2048, is_slow=True)
    spool.loop.run_job()
    spool.turn()
    events = []
    for number in range(6):
        events += spool.add_many(1, size=400, first=number)
        spool.turn()
        if spool.disk.is_busy:
            spool.disk.complete()
    assert not spool.writer.is_ready
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)
    assert events == spool.ears.stored


def test_a_writer_without_any_segment_closes() -> None:
    spool = Spool(is_slow=True)
    spool.add(b"1")
    spool.disk.create_errors = [OSError(ENOSPC, "no")]
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_disk_that_fails_meanwhile_does_not_prevent_the_close(failures: int) -> None:
    spool = Spool()
    spool.add_many(2)
    spool.turn()
    spool.add_many(2, first=2)
    closing = Closing(spool)
    for _ in range(failures):
        if spool.disk.is_busy:
            spool.disk.complete(EIO)
        spool.loop.run_jobs()
        spool.turn()
    closing.settle()
    check_closed(spool, closing)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_disk_that_fails_without_a_next_segment_does_not_prevent_the_close(failures: int) -> None:
    spool = Spool(is_slow=True)
    spool.loop.run_job()
    spool.turn()
    spool.add_many(2)
    spool.turn()
    closing = Closing(spool)
    for _ in range(failures):
        if spool.disk.is_busy:
            spool.disk.complete(EIO)
        spool.turn()
    closing.settle()
    check_closed(spool, closing)


@pytest.mark.parametrize("pause_s", [0.0, 0.5, 1.0, 5.0])
def test_a_broken_writer_closes(pause_s: float) -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(EIO)
    spool.disk.complete(EIO)
    spool.loop.advance(pause_s)
    closing = Closing(spool)
    closing.settle()
    check_closed(spool, closing)


def test_a_separate_sync_in_progress_is_completed_first() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.settle()
    spool.loop.advance(1.1)
    assert spool.disk.is_sync_under_way
    closing = Closing(spool)
    assert not closing.is_done
    closing.settle()
    check_closed(spool, closing)


def test_a_failed_separate_sync_does_not_prevent_the_close() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.settle()
    spool.loop.advance(1.1)
    closing = Closing(spool)
    spool.disk.complete(EIO)
    closing.settle()
    assert closing.is_done
    assert spool.disk.is_closed


def test_waiters_of_a_hung_disk_are_told_during_the_close() -> None:
    # No event waits longer than max_wait_s, not even while the server stops.
    spool = Spool(max_wait_s=2.0)
    spool.add(b"in flight")
    spool.turn()
    spool.add(b"open")
    Closing(spool)
    spool.loop.advance(3)
    assert [b"in flight", b"open"] == spool.ears.not_stored


def test_the_slot_is_released_after_the_segment_in_progress() -> None:
    # The next writer of the slot would choose the same number for its own segment.
    spool = Spool(is_slow=True)
    spool.loop.run_job()
    spool.turn()  # the first segment is there, the next one under way
    closing = Closing(spool)
    closing.settle()
    spool.turn()
    check_closed(spool, closing)


def test_closing_twice_has_no_effect() -> None:
    spool = Spool()
    spool.add(b"1")
    first = Closing(spool)
    second = Closing(spool)
    first.settle()
    second.step()
    assert second.is_done
    check_closed(spool, first)


def test_nothing_happens_after_the_close() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(EIO)
    spool.disk.complete(EIO)
    closing = Closing(spool)
    closing.settle()
    segments = len(spool.disk.segments)
    spool.loop.advance(10)
    spool.settle()
    assert segments == len(spool.disk.segments)
