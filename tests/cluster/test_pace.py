"""A commit with few events waits for more of them, but not for long."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pixelfast.cluster.pace import CommitPace
from tests.fakes import FakeLoop

FEW, MANY = 10, 1000


class Commits:
    """Commits of the events of a slot, and when they were written."""

    def __init__(self) -> None:
        self.loop = cast("Any", FakeLoop())
        self.events = 0
        self.written_ms: list[int] = []
        self.questions = 0
        self.pace = CommitPace(self.loop, min_interval_s=0.020, max_interval_s=0.050)
        self._began_s = self.loop.time()

    def start(self) -> None:
        """Start the commit of the events that have arrived."""
        self.questions += 1
        if not self.pace.delays(self.events, self.start):
            self.written_ms.append(round((self.loop.time() - self._began_s) * 1000))
            self.pace.note_commit()
            self.events = 0

    def receive(self, events: int, after_ms: float = 0) -> None:
        self.loop.advance(after_ms / 1000)
        self.events += events


def test_the_first_commit_is_not_delayed() -> None:
    commits = Commits()
    commits.receive(1)
    commits.start()
    assert [0] == commits.written_ms


@pytest.mark.parametrize(
    ("events", "after_ms", "written_ms"),
    [
        (FEW, 0, 50),
        (FEW, 30, 50),
        (FEW, 49, 50),
        (FEW, 50, 50),
        (FEW, 70, 70),
        (MANY, 0, 20),
        (MANY, 10, 20),
        (MANY, 20, 20),
        (MANY, 21, 21),
    ],
)
def test_a_commit_starts_after_the_interval_for_its_size(
    events: int, after_ms: int, written_ms: int
) -> None:
    commits = Commits()
    commits.start()
    commits.receive(events, after_ms)
    commits.start()
    commits.loop.advance(1)
    assert [0, written_ms] == commits.written_ms


@pytest.mark.parametrize(("arrived_ms", "written_ms"), [(5, 20), (20, 21), (33, 34), (48, 49)])
def test_a_delayed_commit_starts_soon_after_it_has_many_events(
    arrived_ms: int, written_ms: int
) -> None:
    commits = Commits()
    commits.start()
    commits.receive(FEW)
    commits.start()
    commits.receive(MANY, arrived_ms)
    commits.loop.advance(1)
    assert [0] == commits.written_ms[:1]
    assert written_ms == pytest.approx(commits.written_ms[1], abs=1)


def test_a_commit_that_starts_meanwhile_delays_the_next_one_in_full() -> None:
    commits = Commits()
    commits.start()
    commits.receive(FEW)
    commits.start()  # delayed until 50 ms
    commits.receive(MANY, 20.1)
    commits.start()
    commits.receive(FEW, 1)
    commits.start()
    commits.loop.advance(1)
    assert [0, 20, 70] == commits.written_ms


def test_it_is_asked_at_most_once_a_millisecond() -> None:
    commits = Commits()
    commits.start()
    commits.receive(FEW)
    commits.start()
    commits.loop.advance(1)
    assert commits.questions <= 2 + 1 + 30


def test_nothing_is_resumed_after_a_cancel() -> None:
    commits = Commits()
    commits.start()
    commits.receive(FEW)
    commits.start()
    commits.pace.cancel()
    commits.loop.advance(1)
    assert [0] == commits.written_ms
