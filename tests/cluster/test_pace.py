"""There is a minimum time between commits."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pixelfast.cluster.pace import CommitPace
from tests.fakes import FakeLoop


class Commits:
    """Commits, and when they were written."""

    def __init__(self) -> None:
        self.loop = cast("Any", FakeLoop())
        self.written_ms: list[int] = []
        self.pace = CommitPace(self.loop, interval_s=0.050)
        self._began_s = self.loop.time()

    def start(self, after_ms: float = 0) -> None:
        self.loop.advance(after_ms / 1000)
        if not self.pace.delays(self.start):
            self.written_ms.append(round((self.loop.time() - self._began_s) * 1000))
            self.pace.note_commit()


def test_the_first_commit_is_not_delayed() -> None:
    commits = Commits()
    commits.start()
    assert [0] == commits.written_ms


@pytest.mark.parametrize(("after_ms", "written_ms"), [(0, 50), (30, 50), (49, 50), (70, 70)])
def test_a_commit_starts_after_the_interval(after_ms: int, written_ms: int) -> None:
    commits = Commits()
    commits.start()
    commits.start(after_ms)
    commits.loop.advance(1)
    assert [0, written_ms] == commits.written_ms


def test_a_commit_that_starts_at_the_end_of_a_pause_delays_the_next_one_in_full() -> None:
    commits = Commits()
    commits.start()
    commits.start(10)  # delayed until 50 ms
    commits.start(39.9)  # the timer is early
    commits.start(0.2)
    commits.loop.advance(1)
    assert [0, 50, 100] == commits.written_ms


def test_nothing_is_resumed_after_a_cancel() -> None:
    commits = Commits()
    commits.start()
    commits.start(10)
    commits.pace.cancel()
    commits.loop.advance(1)
    assert [0] == commits.written_ms
