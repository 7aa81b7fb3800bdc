"""The states of a writer: each legal transition is reached, each illegal one raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from errno import EIO, ENOSPC

import pytest

from pixelfast.spool import states
from pixelfast.spool.states import STATES, TRANSITIONS, StateMachine
from tests.spool.tools import Closing, Spool

LEGAL = [(before, after) for before in STATES for after in TRANSITIONS[before]]
ILLEGAL = [pair for pair in ((a, b) for a in STATES for b in STATES) if pair not in LEGAL]
PATHS = {"open": [], "closed": ["closing", "closed"]}  # the others are one step away

Step = Callable[[Spool], object]


def nothing(_: Spool) -> None:
    """Do nothing, so that only time passes."""


def wait(spool: Spool) -> None:
    """Let an event wait for the disk, not yet for too long."""
    spool.add(b"1")
    spool.turn()


def be_late(spool: Spool) -> None:
    wait(spool)
    spool.loop.advance(2.3)


def catch_up(spool: Spool) -> None:
    spool.disk.complete()


def fill(spool: Spool) -> None:
    spool.disk.other_bytes = 20_000
    spool.loop.advance(1.1)  # until it is measured


def need_room(spool: Spool) -> None:
    spool.disk.other_bytes = 20_000


def make_room(spool: Spool) -> None:
    spool.disk.other_bytes = 0


def fill_while_late(spool: Spool) -> None:
    spool.loop.advance(0.5)
    wait(spool)
    spool.disk.other_bytes = 20_000
    spool.loop.advance(3)


def fill_while_it_waits(spool: Spool) -> None:
    wait(spool)
    fill(spool)


def fail_twice(spool: Spool) -> None:
    spool.disk.complete(EIO)
    spool.disk.complete(EIO)


def be_failing(spool: Spool) -> None:
    spool.loop.advance(0.6)  # the next attempt follows a measurement, between two checks
    wait(spool)
    fail_twice(spool)


def close(spool: Spool) -> None:
    Closing(spool)


def close_while_it_waits(spool: Spool) -> None:
    wait(spool)
    close(spool)


SCENARIOS: dict[tuple[str, str], tuple[Step, Step]] = {
    ("open", "late"): (wait, nothing),
    ("open", "full"): (nothing, need_room),
    ("open", "failing"): (wait, fail_twice),
    ("open", "closing"): (wait, close),
    ("late", "open"): (be_late, catch_up),
    ("late", "full"): (be_late, need_room),
    ("late", "failing"): (be_late, fail_twice),
    ("late", "closing"): (be_late, close),
    ("full", "open"): (fill, make_room),
    ("full", "late"): (fill_while_late, make_room),
    ("full", "failing"): (fill_while_it_waits, fail_twice),
    ("full", "closing"): (fill_while_it_waits, close),
    ("failing", "open"): (be_failing, nothing),
    ("failing", "full"): (be_failing, need_room),
    ("failing", "closed"): (be_failing, close),
    ("closing", "closed"): (close_while_it_waits, Spool.settle),
}


def test_there_is_a_scenario_for_each_transition() -> None:
    assert set(LEGAL) == set(SCENARIOS)


@pytest.mark.parametrize(("before", "after"), SCENARIOS)
def test_a_transition_is_reached(before: str, after: str) -> None:
    spool = Spool(max_bytes=10_000, max_wait_s=2.0)
    start, step = SCENARIOS[before, after]
    start(spool)
    assert before == spool.writer.state
    step(spool)
    for _ in range(300):
        if spool.writer.state != before:
            break
        spool.loop.advance(0.01)
    assert after == spool.writer.state


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_an_illegal_transition_raises_and_changes_nothing(before: str, after: str) -> None:
    machine = StateMachine()
    for state in PATHS.get(before, [before]):
        machine.change_to(state)
    with pytest.raises(AssertionError, match=f"from {before} to {after}$"):
        machine.change_to(after)
    assert before == machine.name


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_a_legal_transition_is_made(before: str, after: str) -> None:
    machine = StateMachine()
    for state in [*PATHS.get(before, [before]), after]:
        machine.change_to(state)
    assert after == machine.name


def test_a_new_writer_is_open_and_a_closed_one_stays_closed() -> None:
    assert StateMachine().name == "open" == STATES[0]
    assert () == TRANSITIONS["closed"]


def test_the_table_in_the_docstring_matches_the_transitions() -> None:
    assert states.__doc__ is not None
    rows = re.findall(r"^    ([A-Z]+) +([A-Z]+) ", states.__doc__, re.MULTILINE)
    assert sorted(LEGAL) == sorted((before.lower(), after.lower()) for before, after in rows)


@pytest.mark.parametrize(
    ("start", "state", "rejection"),
    [
        (nothing, "open", ""),
        (be_late, "late", "spool-overloaded"),
        (fill, "full", "spool-full"),
        (fill_while_late, "full", "spool-full"),
        (be_failing, "failing", "disk-error"),
        (close_while_it_waits, "closing", "shutting-down"),
        (close, "closed", "shutting-down"),
    ],
)
def test_each_state_has_its_rejection(start: Step, state: str, rejection: str) -> None:
    spool = Spool(max_bytes=10_000, max_wait_s=2.0)
    start(spool)
    assert (state, rejection) == (spool.writer.state, spool.writer.rejection)
    assert spool.writer.is_ready is (state == "open")
    assert (spool.add(b"2") > 0) is (state == "open")


def test_a_measurement_alone_does_not_end_lateness() -> None:
    spool = Spool(max_wait_s=2.0)
    be_late(spool)
    spool.loop.advance(1)  # measured meanwhile
    assert spool.writer.state == "late"


def test_a_closing_writer_stays_closing_after_any_measurement() -> None:
    spool = Spool(max_bytes=10_000, max_wait_s=2.0)
    close_while_it_waits(spool)
    spool.disk.other_bytes = 20_000
    spool.loop.advance(3)
    assert spool.writer.state == "closing"
    fail_twice(spool)
    assert spool.writer.state == "closed"
    spool.loop.advance(3)
    assert spool.writer.state == "closed"


def test_a_failing_writer_stays_failing_after_any_measurement() -> None:
    spool = Spool(max_bytes=10_000, is_slow=True)
    spool.disk.create_errors = [OSError(ENOSPC, "no") for _ in range(50)]
    spool.settle()
    for other_bytes in (20_000, 0):
        spool.disk.other_bytes = other_bytes
        spool.loop.advance(1.3)
        spool.settle()
        assert ("failing", "disk-full") == (spool.writer.state, spool.writer.rejection)
