"""The guarantees of the three levels of acknowledgement, and how soon a sync follows a write."""

from __future__ import annotations

from errno import EIO
from typing import Any

import pytest

from tests.spool.tools import Closing, Spool


def sync_delay_s(spool: Spool) -> float:
    """Return the time from now until a sync begins, by the loop's clock."""
    began_s = spool.loop.now_s
    for _ in range(300):
        if spool.disk.is_busy:
            if spool.disk.is_sync_under_way:
                break
            spool.disk.complete()
        spool.loop.advance(0.01)
    return spool.loop.now_s - began_s


def test_synced_syncs_each_commit() -> None:
    spool = Spool(ack="synced")
    for number in range(5):
        spool.add_many(2, first=2 * number)
        spool.settle()
    assert (5, 5) == (spool.writer.commits, spool.disk.syncs)
    assert not spool.writer.acks_at_once


def test_written_acknowledges_after_the_write() -> None:
    spool = Spool(ack="written")
    events = spool.add_many(2)
    spool.turn()
    assert spool.ears.calls == []
    spool.disk.complete()
    assert events == spool.ears.stored
    assert events == [event for _, event in spool.disk.events()]
    assert spool.disk.syncs == 0


def test_written_syncs_within_a_second_after_the_write() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.turn()
    assert not spool.disk.is_sync_under_way
    spool.disk.complete()
    assert sync_delay_s(spool) <= 1.02
    spool.disk.complete()
    assert spool.disk.durable_events() == [("demo", b"1")]


def test_written_syncs_with_the_next_commit_if_it_is_in_time() -> None:
    spool = Spool(ack="written")
    for number in range(40):
        spool.add(b"%d" % number)
        spool.settle()
        spool.loop.advance(0.3)
    assert spool.disk.submitted <= 41
    assert 9 <= spool.disk.syncs <= 12


def test_written_syncs_after_a_mebibyte() -> None:
    spool = Spool(ack="written")
    syncs = []
    for number in range(30):
        spool.add_many(1, size=100_000, first=number)
        spool.settle()
        syncs.append(spool.disk.syncs)
    assert [0] * 10 + [1] * 11 + [2] * 9 == syncs


def test_written_does_not_sync_twice() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.settle()
    for _ in range(20):
        spool.loop.advance(0.5)
        spool.settle()
    assert spool.disk.syncs == 1


@pytest.mark.parametrize("written_at_s", [0.1, 0.9])
def test_written_syncs_in_time_also_when_commits_are_slow(written_at_s: float) -> None:
    # The commit in progress when the second has passed delays the sync.
    spool = Spool(ack="written")
    spool.loop.advance(1.5)
    spool.add(b"0")
    spool.settle()  # it was time for a sync: the second starts here
    spool.loop.advance(written_at_s)
    spool.add(b"1")
    spool.settle()
    spool.loop.advance(0.999 - written_at_s)
    spool.add(b"2")
    spool.turn()
    assert (True, False) == (spool.disk.is_busy, spool.disk.is_sync_under_way)
    spool.loop.advance(written_at_s + 0.002)  # a second after event 1 was written
    spool.disk.complete()
    spool.turn()
    assert sync_delay_s(spool) <= 0.02


def test_written_syncs_a_segment_that_it_closes() -> None:
    spool = Spool(ack="written", segment_bytes=2048)
    events = []
    for number in range(20):
        events += spool.add_many(1, size=400, first=number)
        spool.settle()
    durable = [event for _, event in spool.disk.durable_events()]
    assert spool.disk.syncs == 0
    assert len(durable) >= 16
    assert events[: len(durable)] == durable


def test_received_tells_no_waiter_and_still_stores() -> None:
    spool = Spool(ack="received")
    assert spool.writer.acks_at_once
    events = spool.add_many(5)
    spool.settle()
    assert spool.ears.calls == []
    assert events == [event for _, event in spool.disk.events()]
    assert sync_delay_s(spool) <= 1.02
    spool.disk.complete()
    assert events == [event for _, event in spool.disk.durable_events()]


def test_received_counts_lost_events() -> None:
    spool = Spool(ack="received")
    spool.add_many(5)
    spool.turn()
    spool.add_many(2, first=5)
    spool.disk.complete(5)
    spool.disk.complete(5)
    spool.settle()
    assert (7, 0, 0) == (
        spool.writer.lost_events,
        spool.writer.stored_events,
        spool.writer.waiting_bytes,
    )
    assert spool.ears.calls == []


def test_received_keeps_events_that_wait_for_a_slow_disk() -> None:
    # It was acknowledged already: giving it up because it waits too long would lose it needlessly.
    spool = Spool(ack="received")
    spool.add(b"1")
    spool.turn()
    spool.add(b"2")
    spool.loop.advance(30)
    assert spool.add(b"3") == 0
    spool.settle()
    assert [b"1", b"2"] == [event for _, event in spool.disk.events()]
    assert spool.writer.lost_events == 0


@pytest.mark.parametrize("ack", ["written", "received"])
def test_written_events_are_synced_when_the_writer_closes(ack: str) -> None:
    spool = Spool(ack=ack)
    events = spool.add_many(3)
    spool.settle()
    closing = Closing(spool)
    closing.settle()
    assert closing.is_done
    assert events == [event for _, event in spool.disk.durable_events()]


@pytest.mark.parametrize("ack", ["synced", "written", "received"])
def test_a_closed_writer_leaves_its_files_alone(ack: str) -> None:
    # By then, its descriptors may belong to other files.
    spool = Spool(ack=ack)
    spool.add(b"1")
    spool.settle()
    closing = Closing(spool)
    closing.settle()
    assert closing.is_done
    submitted = spool.disk.submitted
    spool.loop.advance(10)  # the strict disk raises where it is used now
    assert submitted == spool.disk.submitted
    assert not spool.disk.is_busy


def test_written_does_not_sync_an_empty_segment() -> None:
    spool = Spool(ack="written")
    spool.add(b"1")
    spool.turn()
    spool.disk.complete(EIO)
    spool.disk.complete(EIO)
    assert spool.disk.submitted == 2
    spool.loop.advance(3)
    assert (2, True) == (spool.disk.submitted, spool.writer.is_ready)


class HeldCommits:
    """Acks that delay each commit until a test allows it."""

    def __init__(self) -> None:
        self.questions = 0
        self.is_delaying = True
        self.written: list[Any] = []

    def delays_commit(self) -> bool:
        self.questions += 1
        return self.is_delaying

    def on_written(
        self, _segment: Any, _offset: int, _image: bytes, waiters: list[Any], *_: Any
    ) -> None:
        self.written += waiters

    def on_synced(self, *_: Any) -> None:
        pass


def test_a_delayed_commit_is_not_attempted_again_before_the_writer_is_resumed() -> None:
    acks = HeldCommits()
    spool = Spool(ack="written", acks=acks)
    events = []
    for number in range(10):
        events += spool.add_many(1, first=number)
        spool.turn()
    assert (1, 0) == (acks.questions, spool.disk.submitted)
    acks.is_delaying = False
    spool.writer.resume()
    spool.settle()
    assert (1, events) == (spool.writer.commits, acks.written)
