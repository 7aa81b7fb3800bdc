"""Group commit: which events form a commit, when waiters are told, and where a segment ends."""

from __future__ import annotations

import pytest

from tests.spool.tools import Closing, Spool

MAX_EVENT_BYTES = 32_768


def test_events_of_one_turn_of_the_loop_are_one_commit() -> None:
    spool = Spool()
    events = spool.add_many(10)
    spool.turn()
    spool.disk.complete()
    (frame,) = spool.disk.frames()
    assert (1, 10) == (spool.writer.commits, frame.events)
    assert [(events, 1, True)] == spool.ears.calls


def test_nothing_is_written_before_the_turn_ends() -> None:
    spool = Spool()
    spool.add(b"{}")
    assert not spool.disk.is_busy
    spool.turn()
    assert spool.disk.is_busy


def test_no_waiter_is_told_before_the_sync_is_complete() -> None:
    spool = Spool()
    spool.add(b"{}")
    spool.turn()
    spool.loop.advance(0.2)
    assert spool.ears.calls == []
    spool.disk.complete()
    assert spool.ears.heard == {b"{}": True}
    assert spool.disk.durable_events() == [("demo", b"{}")]


def test_events_that_arrive_during_a_commit_are_the_next_commit() -> None:
    spool = Spool()
    spool.add(b"1")
    spool.turn()
    for event in (b"2", b"3", b"4"):
        spool.add(event)
        spool.turn()
    assert spool.disk.submitted == 1
    spool.disk.complete()
    assert spool.disk.submitted == 2
    assert [b"1"] == spool.ears.stored
    spool.disk.complete()
    assert [1, 3] == [frame.events for frame in spool.disk.frames()]
    assert [b"1", b"2", b"3", b"4"] == spool.ears.stored


def test_the_next_commit_starts_before_the_waiters_are_told() -> None:
    spool = Spool()
    under_way: list[bool] = []
    spool.on_heard = lambda: under_way.append(spool.disk.is_busy)
    spool.add(b"1")
    spool.turn()
    spool.add(b"2")
    spool.settle()
    assert [True, False] == under_way


def test_tickets_count_up_from_one_without_a_gap() -> None:
    spool = Spool(segment_bytes=4096)
    tickets = []
    for number in range(60):
        tickets.append(spool.add(b"%0300d" % number))
        if number % 7 == 0:
            spool.turn()
    assert list(range(1, 61)) == tickets
    spool.settle()
    assert len(spool.ears.stored) == 60


def test_a_rejected_event_uses_no_ticket() -> None:
    spool = Spool(max_waiting_bytes=100)
    assert [1, 2] == [spool.add(b"x" * 40), spool.add(b"y" * 40)]
    assert spool.rejection_of(b"z" * 40) == "spool-overloaded"
    spool.settle()
    assert spool.add(b"z" * 40) == 3


def test_a_large_backlog_is_written_by_several_commits_in_order() -> None:
    spool = Spool(segment_bytes=64 * 1024)  # a commit takes a quarter of it
    events = spool.add_many(90, size=500)
    spool.settle()
    assert events == [event for _, event in spool.disk.events()]
    assert [True] * 90 == [spool.ears.heard[event] for event in events]
    assert spool.writer.commits == 3
    firsts = [first for _, first, _ in spool.ears.calls]
    counts = [len(waiters) for waiters, _, _ in spool.ears.calls]
    assert [1, 1 + counts[0], 1 + counts[0] + counts[1]] == firsts


@pytest.mark.parametrize("count", [32, 33, 65])
def test_commits_of_the_largest_events_can_all_be_read(count: int) -> None:
    spool = Spool(names=["a", "b"])
    events = [b"%0*d" % (MAX_EVENT_BYTES, number) for number in range(count)]
    for number, event in enumerate(events):
        assert spool.add(event, number % 2) > 0
    spool.settle()
    assert sorted(events) == sorted(event for _, event in spool.disk.events())
    assert spool.ears.not_stored == []


def test_each_source_has_its_own_frame_in_a_commit() -> None:
    spool = Spool(names=["web", "app", "mail"])
    for number, source in enumerate((2, 0, 2, 1, 0)):
        spool.add(b"%d" % number, source)
    spool.settle()
    expected = [("mail", [b"0", b"2"]), ("web", [b"1", b"4"]), ("app", [b"3"])]
    frames = spool.disk.frames()
    assert expected == [(f.source, bytes(f.body).splitlines()) for f in frames]
    assert [([b"0", b"1", b"2", b"3", b"4"], 1, True)] == spool.ears.calls
    assert spool.writer.commits == 1


def test_segments_are_closed_before_they_overflow() -> None:
    # The strict disk rejects whatever goes beyond its segment.
    spool = Spool(segment_bytes=2048)
    events = []
    for number in range(100):
        events += spool.add_many(1, size=1 + number * 4, first=number)
        spool.settle()
    assert events == [event for _, event in spool.disk.events()]
    used = [segment for segment in spool.disk.segments if len(segment.data) > 64]
    assert len(used) > 10
    assert [True] * (len(used) - 1) + [None] == [segment.retired for segment in used]


def test_a_closed_segment_keeps_its_events() -> None:
    spool = Spool(segment_bytes=2048, ack="written")
    events = []
    for number in range(10):
        events += spool.add_many(1, size=300, first=number)
        spool.settle()
    left = [segment for segment in spool.disk.segments if segment.retired]
    assert len(left) == 1
    durable = [event for _, event in spool.disk.durable_events()]
    assert events[: len(durable)] == durable
    assert len(left[0].data) == len(spool.disk.durable[left[0].fd])


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("size", [50, 6], ids=["small events", "tiny events"])
def test_commits_of_very_many_sources_fit_into_the_smallest_segment(
    size: int, is_slow: bool
) -> None:
    # The headers of their frames are larger than the events themselves.
    names = [f"source-{number:056d}" for number in range(2000)]
    spool = Spool(segment_bytes=128 * 1024, names=names, is_slow=is_slow)
    events = [b"%0*d" % (size, number) for number in range(8000)]
    for number, event in enumerate(events):
        assert spool.add(event, number % 2000) > 0
    spool.settle()
    assert sorted(events) == sorted(event for _, event in spool.disk.events())


def test_one_segment_is_made_ahead() -> None:
    spool = Spool(segment_bytes=2048)
    assert [1, 2] == [segment.id.number for segment in spool.disk.segments]
    for number in range(8):
        spool.add_many(1, size=400, first=number)
        spool.settle()
    current = max(n for n, s in enumerate(spool.disk.segments) if len(s.data) > 64)
    assert len(spool.disk.segments) == current + 2


def test_events_wait_for_the_first_segment() -> None:
    spool = Spool(is_slow=True)
    assert not spool.writer.is_ready
    events = spool.add_many(3)
    spool.turn()
    assert not spool.disk.is_busy
    spool.settle()
    assert spool.writer.is_ready
    assert events == spool.ears.stored


def test_events_wait_until_the_next_segment_exists() -> None:
    spool = Spool(segment_bytes=2048)
    spool.loop.is_slow = True
    events = []
    for number in range(12):
        events += spool.add_many(1, size=400, first=number)
        spool.turn()
        if spool.disk.is_busy:
            spool.disk.complete()
    assert not spool.writer.is_ready
    assert len(spool.ears.heard) < 12
    spool.settle()
    assert events == spool.ears.stored
    assert events == [event for _, event in spool.disk.events()]


def test_a_waiter_may_add_the_next_event_while_it_is_told() -> None:
    # A pipelined connection continues reading as soon as its response is sent.
    spool = Spool()
    more = [b"3", b"2"]
    spool.on_heard = lambda: more and spool.add(more.pop())
    spool.add(b"1")
    spool.settle()
    assert [b"1", b"2", b"3"] == spool.ears.stored


def test_commits_and_events_are_counted() -> None:
    spool = Spool()
    used_before = spool.writer.used_bytes
    spool.add_many(3)
    spool.turn()
    spool.loop.advance(0.2)
    spool.disk.complete()
    spool.add_many(2, first=3)
    spool.settle()
    writer, frames = spool.writer, spool.disk.frames()
    written = sum(frame.length for frame in frames)
    assert (2, 5, 0, 0) == (
        writer.commits,
        writer.stored_events,
        writer.failed_commits,
        writer.lost_events,
    )
    assert written == writer.stored_bytes
    assert written == writer.used_bytes - used_before
    assert writer.waiting_bytes == 0


def test_waiting_bytes_are_events_with_their_line_feeds() -> None:
    spool = Spool()
    spool.add(b"12345")
    assert spool.writer.waiting_bytes == 6
    spool.turn()
    spool.add(b"1")
    assert spool.writer.waiting_bytes == 8
    spool.disk.complete()
    assert spool.writer.waiting_bytes == 2
    spool.settle()
    assert spool.writer.waiting_bytes == 0


def test_an_idle_writer_commits_nothing() -> None:
    spool = Spool()
    spool.loop.advance(60)
    spool.settle()
    assert spool.disk.submitted == 0
    assert len(spool.disk.segments) == 2
    closing = Closing(spool)
    closing.settle()
    assert closing.is_done
    assert spool.disk.submitted == 0
