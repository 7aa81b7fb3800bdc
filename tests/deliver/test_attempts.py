"""Counting delivery attempts by result."""

from __future__ import annotations

import pytest

from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.outcomes import (
    Accepted,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
    Waiting,
)
from tests.deliver.clocks import HandClock

NO = Rejected("status 400", 400)


@pytest.mark.parametrize(
    ("outcome", "result", "is_success"),
    [
        (Accepted(), "accepted", True),
        (Partial.of({0: NO}), "partial", True),
        (Partial.of({0: NO, 1: NO}), "partial", False),
        (NO, "rejected", False),
        (Retry("down"), "retry", False),
        (Held("status 401"), "held", False),
        (Waiting("the disk is full"), "waiting", False),
    ],
)
def test_an_attempt_is_a_success_if_an_event_was_accepted(
    outcome: Outcome, result: str, is_success: bool
) -> None:
    hand = HandClock(1000.0)
    attempts = Attempts(hand.clock)
    began_s = attempts.began_s()
    hand.advance(2.0)
    attempts.count(outcome, 2, began_s)
    figures = attempts.figures()
    assert {result: 1} == {name: count for name, count in figures["results"].items() if count}
    assert 2.0 == figures["durations"]["sum"]
    assert (1002.0 if is_success else 0.0) == attempts.last_success_s
