"""The supervisor detects processes that hang."""

from __future__ import annotations

import signal

import pytest
from structlog.testing import capture_logs

from pixelfast.config import Config
from pixelfast.operate.child import Child
from pixelfast.operate.control import Orders

READY = b'{"is_ready": true}'


class FakeProcess:
    """A process that records the signals it is sent."""

    returncode = None

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Watched(Child):
    """A child with a process of its own and a clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        orders = Orders(role="collector", config=Config(), data_dir="unused")
        super().__init__(orders, clock=lambda: self.now_s)
        self.fake = FakeProcess()
        self.process = self.fake  # type: ignore[assignment]


@pytest.fixture
def child() -> Watched:
    child = Watched()
    child.on_report(READY)
    return child


def test_a_process_that_reports_is_left_alone(child: Watched) -> None:
    with capture_logs() as logs:
        for _ in range(30):
            child.now_s += 1.0
            child.watch(10.0)
            child.on_report(READY)
            assert child.is_ready
    assert ([], []) == (logs, child.fake.signals)


def test_a_silent_process_is_not_ready_and_logged_once(child: Watched) -> None:
    with capture_logs() as logs:
        for _ in range(18):
            child.now_s += 0.5
            child.watch(10.0)
    assert not child.is_ready
    assert [("process_silent", "collector-0")] == [(log["event"], log["name"]) for log in logs]
    assert [] == child.fake.signals
    child.on_report(READY)
    assert child.is_ready


def test_a_process_that_hangs_is_killed_once(child: Watched) -> None:
    with capture_logs() as logs:
        for _ in range(60):
            child.now_s += 0.5
            child.watch(10.0)
    assert [signal.SIGKILL] == child.fake.signals
    assert ["process_silent", "process_hung"] == [log["event"] for log in logs]


def test_a_short_limit_is_respected(child: Watched) -> None:
    child.now_s += 2.5
    child.watch(2.0)
    assert [signal.SIGKILL] == child.fake.signals


def test_a_process_that_has_never_been_ready_is_given_a_minute() -> None:
    child = Watched()
    child.on_report(b'{"is_ready": false}')
    child.now_s += 59.0
    child.watch(10.0)
    assert [] == child.fake.signals
    child.now_s += 2.0
    child.watch(10.0)
    assert [signal.SIGKILL] == child.fake.signals


def test_the_time_in_which_the_supervisor_was_paused_is_not_counted(child: Watched) -> None:
    child.now_s += 60.0
    child.excuse(59.0)
    child.watch(10.0)
    assert child.is_ready
    child.now_s += 9.5
    child.watch(10.0)
    assert [signal.SIGKILL] == child.fake.signals
