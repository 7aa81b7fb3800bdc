"""Fewer, larger commits on a fast disk; at once where it is idle, slow, or little waits."""

from __future__ import annotations

import pytest

from pixelfast.spool.pace import Pace
from tests.spool.tools import Closing, Spool


def paced(**options: float) -> Spool:
    """A writer whose first commit of one event has just ended, after 0.2 ms."""
    spool = Spool(min_interval_s=0.001, max_waiting_bytes=2**20 * 32, **options)
    spool.loop.advance(0.01)
    spool.add(b"first")
    spool.turn()
    spool.loop.advance(0.0002)
    return spool


def end(spool: Spool) -> None:
    spool.disk.complete()
    spool.turn()


def test_the_first_commit_starts_at_once_whatever_waits() -> None:
    spool = Spool(min_interval_s=0.001)
    spool.add_many(100)
    spool.turn()
    assert spool.disk.is_busy


def test_where_little_waits_the_next_commit_starts_at_once() -> None:
    spool = paced()
    spool.add_many(7)
    end(spool)
    assert spool.disk.is_busy


def test_where_several_wait_the_next_commit_waits_for_more() -> None:
    spool = paced()
    spool.add_many(8)
    end(spool)
    spool.add_many(5, first=8)
    spool.loop.advance(0.0007)
    assert not spool.disk.is_busy
    spool.loop.advance(0.0002)
    assert spool.disk.is_busy
    end(spool)
    assert [1, 13] == [frame.events for frame in spool.disk.stored_frames()]


def test_events_that_come_to_an_idle_disk_are_committed_at_once() -> None:
    spool = paced()
    end(spool)
    spool.loop.advance(0.001)
    spool.add_many(50)
    spool.turn()
    assert spool.disk.is_busy


def test_a_batch_that_is_full_ends_the_pause() -> None:
    spool = paced()
    spool.add_many(8)
    end(spool)
    assert not spool.disk.is_busy
    spool.add_many(40, size=30_000, first=8)
    spool.turn()
    assert spool.disk.is_busy


def test_a_slow_disk_has_no_pause() -> None:
    spool = paced()
    spool.loop.advance(0.03)
    spool.add_many(50)
    end(spool)
    assert spool.disk.is_busy


def test_closing_does_not_wait() -> None:
    spool = paced()
    spool.add_many(8)
    end(spool)
    closing = Closing(spool)
    assert spool.disk.is_busy
    closing.settle()
    assert closing.is_done
    spool.loop.advance(1.0)
    assert len(spool.ears.stored) == 9


@pytest.mark.parametrize(
    ("taken_s", "apart_s"), [(0.0001, 0.001), (0.004, 0.002), (0.008, 0.004), (1.0, 0.005)]
)
def test_it_is_half_of_what_commits_take_in_bounds(taken_s: float, apart_s: float) -> None:
    pace = Pace(0.001)
    for number in range(100):
        pace.on_start(number * 10.0)
        pace.on_end(number * 10.0 + taken_s)
    pace.on_start(2000.0)
    assert pace.rest_s(8, 2000.0) == pytest.approx(apart_s, rel=0.01)
    assert pace.total_s == pytest.approx(100 * taken_s)
    assert Pace(0.0).rest_s(100, 0.0) == 0.0
