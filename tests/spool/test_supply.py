"""The segments of a writer: one is created in advance, and none stays open."""

from __future__ import annotations

from collections.abc import Coroutine
from errno import EIO, ENOSPC
from typing import Any

import pytest

from pixelfast.spool.supply import SegmentSupply
from tests.spool.tools import SlowLoop, StrictDisk


class Supply:
    """A supply on a strict disk; its threads run when a test lets them."""

    def __init__(self) -> None:
        self.loop = SlowLoop()
        self.disk = StrictDisk(self.loop)
        self.heard: list[int] = []
        self.supply = SegmentSupply(
            self.loop,  # type: ignore[arg-type]
            self.disk,  # type: ignore[arg-type]
            self.heard.append,
        )

    def settle(self) -> None:
        self.loop.run_jobs()
        self.loop.turn()


def step(closing: Coroutine[Any, Any, None]) -> bool:
    """Continue a coroutine; return whether it has ended."""
    try:
        closing.send(None)
    except StopIteration:
        return True
    return False


def test_a_segment_is_created_only_once_for_several_requests() -> None:
    own = Supply()
    own.supply.make()
    own.supply.make()
    assert own.supply.take() is None
    assert (1, False) == (len(own.loop.jobs), own.supply.has_segment)
    own.settle()
    own.supply.make()
    assert (0, True, [0]) == (len(own.loop.jobs), own.supply.has_segment, own.heard)


def test_a_segment_is_returned_only_once() -> None:
    own = Supply()
    own.supply.make()
    own.settle()
    first = own.supply.take()
    assert first is not None
    assert own.supply.take() is None
    own.supply.make()
    own.settle()
    second = own.supply.take()
    assert second is not None
    assert [1, 2] == [first.id.number, second.id.number]


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(ENOSPC, "no space"), ENOSPC), (OSError("no number"), EIO)]
)
def test_an_error_is_reported_and_nothing_is_retried(error: OSError, expected: int) -> None:
    own = Supply()
    own.disk.create_errors = [error]
    own.supply.make()
    own.settle()
    own.settle()
    assert ([expected], 0) == (own.heard, len(own.loop.jobs))
    own.supply.make()
    own.settle()
    assert ([expected, 0], True) == (own.heard, own.supply.has_segment)


def test_closing_waits_for_the_segment_in_progress_and_closes_it() -> None:
    own = Supply()
    own.supply.make()
    own.settle()
    current = own.supply.take()
    own.supply.make()
    closing = own.supply.close(current)
    assert not step(closing)
    own.settle()
    assert step(closing)
    assert [True, True] == [segment.retired for segment in own.disk.segments]


def test_a_closed_supply_creates_no_segments() -> None:
    own = Supply()
    assert step(own.supply.close(None))
    own.supply.make()
    assert own.supply.take() is None
    assert 0 == len(own.loop.jobs)


def test_a_segment_that_cannot_be_closed_is_logged(
    logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Supply()
    own.supply.make()
    own.settle()
    segment = own.supply.take()
    assert segment is not None

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(EIO, "broken")

    monkeypatch.setattr(own.disk, "retire", fail)
    own.supply.leave(segment, is_sound=False)
    own.settle()
    found = [(entry["event"], entry["segment"]) for entry in logs]
    assert [("segment_close_failed", "0000000000000001.seg")] == found


def test_a_disk_that_stays_full_is_logged_once_and_so_is_its_end(logs: list[Any]) -> None:
    own = Supply()
    own.disk.create_errors = [OSError(ENOSPC, "no space")] * 3 + [OSError(EIO, "broken")]
    for _ in range(6):
        own.supply.make()
        own.settle()
    assert [0] == own.heard[-1:]
    assert [
        ("segment_create_failed", "no space"),
        ("segment_create_failed", "broken"),
        ("segment_created", None),
    ] == [(entry["event"], entry.get("error")) for entry in logs]


def test_the_pause_before_the_next_segment_grows_with_repeated_failures() -> None:
    own = Supply()
    for pause_s in (0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        own.supply.make()
        own.settle()
        segment = own.supply.take()
        assert segment is not None
        own.supply.leave(segment, is_sound=False)
        if pause_s:
            own.loop.advance(pause_s - 0.01)
            own.settle()
            assert not own.supply.has_segment
            own.loop.advance(0.02)
        own.settle()
        assert own.supply.has_segment
    own.loop.advance(10.1)
    segment = own.supply.take()
    assert segment is not None
    own.supply.leave(segment, is_sound=False)
    own.settle()
    assert own.supply.has_segment, "the failures were long ago"


def test_the_next_segment_is_made_at_once_after_a_sound_one() -> None:
    own = Supply()
    for is_sound in (False, False, True):
        own.supply.make()
        own.settle()
        segment = own.supply.take()
        assert segment is not None
        own.supply.leave(segment, is_sound=is_sound)
    own.settle()
    assert own.supply.has_segment
