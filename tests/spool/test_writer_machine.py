"""The writer with a disk that stalls, fails and recovers in any order.

The machine adds events, lets time pass, lets threads finish, and ends commits with or without an
error. After each step it checks that every waiter is told once and correctly, and that no event is
forgotten.
"""

from __future__ import annotations

from errno import EIO, ENOSPC

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.spool.tools import Closing, Spool

NAMES = ["web", "app", "mail"]
errors = st.sampled_from([EIO, ENOSPC])


class WriterMachine(RuleBasedStateMachine):
    """Every event is unique, so that it can be found on the disk."""

    @initialize(
        ack=st.sampled_from(["synced", "written", "received"]),
        segment_bytes=st.sampled_from([4096, 6000, 16384]),
        max_waiting_bytes=st.sampled_from([2000, 10**6]),
        is_slow=st.booleans(),
    )
    def start(self, ack: str, segment_bytes: int, max_waiting_bytes: int, is_slow: bool) -> None:
        self.ack = ack
        self.spool = Spool(
            names=NAMES,
            ack=ack,
            segment_bytes=segment_bytes,
            max_waiting_bytes=max_waiting_bytes,
            is_slow=is_slow,
        )
        self.spool.on_heard = self.on_heard
        self.accepted: dict[bytes, int] = {}
        self.made = 0
        self.late: set[bytes] = set()  # reported as not stored while they were being written
        self.wants_more = False

    def on_heard(self) -> None:
        waiters, _, is_stored = self.spool.ears.calls[-1]
        disk = self.spool.disk
        if is_stored:
            found = disk.durable_events() if self.ack == "synced" else disk.events()
            events = {event for _, event in found}
            assert set(waiters) <= events, "told that it is stored, and it is not"
        elif disk.is_busy:
            self.late.update(waiters)
        if self.wants_more:
            self.wants_more = False
            self.add(0, 50)

    @rule(source=st.integers(0, 2), size=st.one_of(st.integers(8, 60), st.integers(8, 900)))
    def add(self, source: int, size: int) -> None:
        event = b"%0*d" % (size, self.made)
        self.made += 1
        ticket = self.spool.add(event, source)
        assert ticket in (len(self.accepted) + 1, 0)
        if ticket:
            self.accepted[event] = source

    @rule(count=st.integers(5, 30))
    def add_many(self, count: int) -> None:
        for number in range(count):
            self.add(number % 3, 100)

    @rule()
    def add_one_more_when_somebody_hears(self) -> None:
        self.wants_more = True

    @rule()
    def turn(self) -> None:
        self.spool.turn()

    @precondition(lambda self: self.spool.loop.jobs)
    @rule()
    def let_a_thread_finish(self) -> None:
        self.spool.loop.run_job()

    @precondition(lambda self: self.spool.disk.is_busy)
    @rule()
    def complete(self) -> None:
        self.spool.disk.complete()

    @precondition(lambda self: self.spool.disk.is_busy)
    @rule(error=errors, kept=st.one_of(st.just(10**6), st.integers(0, 500)))
    def fail(self, error: int, kept: int) -> None:
        self.spool.disk.complete(error, kept=kept)

    @rule(error=errors)
    def let_the_next_segment_fail(self, error: int) -> None:
        self.spool.disk.create_errors.append(OSError(error, "no"))

    @rule(seconds=st.sampled_from([0.01, 0.26, 1.0, 2.3]))
    def pass_time(self, seconds: float) -> None:
        self.spool.loop.advance(seconds)

    @rule()
    def settle(self) -> None:
        self.spool.settle()

    @invariant()
    def waiting_bytes_are_those_of_the_events_that_wait(self) -> None:
        if self.ack == "received":
            return
        heard = self.spool.ears.heard
        waiting = sum(len(event) + 1 for event in self.accepted if event not in heard)
        late = sum(len(event) + 1 for event in self.late)
        assert waiting <= self.spool.writer.waiting_bytes <= waiting + late

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return
        self.wants_more = False
        self.spool.disk.create_errors.clear()
        for _ in range(12):
            self.spool.settle()
            self.spool.loop.advance(0.5)
        self.spool.settle()
        self.check_that_it_is_well_again()
        closing = Closing(self.spool)
        closing.settle()
        assert closing.is_done
        self.check_all()

    def check_that_it_is_well_again(self) -> None:
        writer = self.spool.writer
        assert (True, "", 0) == (writer.is_ready, writer.rejection, writer.waiting_bytes)
        self.add(1, 40)
        self.spool.settle()
        last = max(self.accepted, key=int)
        assert ("app", last) in self.spool.disk.events()

    def check_all(self) -> None:
        writer, disk = self.spool.writer, self.spool.disk
        assert disk.is_closed
        assert all(segment.retired is not None for segment in disk.segments)
        if self.ack == "received":
            assert len(self.accepted) == writer.stored_events + writer.lost_events
        else:
            assert set(self.accepted) == set(self.spool.ears.heard)
        sound = disk.stored_frames()
        for source, name in enumerate(NAMES):
            mine = [e for f in sound if f.source == name for e in bytes(f.body).splitlines()]
            numbers = [int(event) for event in mine]
            assert sorted(set(numbers)) == numbers, "twice, or not in order"
            assert all(self.accepted[event] == source for event in mine)
        assert writer.stored_events == sum(frame.events for frame in sound)
        next_number = 0
        for frame in sound:
            assert frame.first_number >= next_number, "a number used twice"
            next_number = frame.first_number + frame.events
        assert next_number <= len(self.accepted)


class ClosingMachine(WriterMachine):
    """The same machine, closed at any time."""

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return
        self.wants_more = False
        closing = Closing(self.spool)
        for _ in range(12):
            closing.settle()
            self.spool.loop.advance(0.5)
        assert closing.is_done, "close() hangs"
        self.check_all()


WriterMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestWriter = WriterMachine.TestCase
ClosingMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestClosingWriter = ClosingMachine.TestCase
