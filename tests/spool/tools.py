"""Tools for the spool's tests: a slot written by hand, a strict disk, a slow loop."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from pixelfast.spool import DataDir, Position, SlotReader, SpoolWriter
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, Frame
from tests.fakes import FakeDisk, FakeLoop, FakeSegment


def drain(reader: SlotReader, patience: int = 3) -> list[Frame]:
    """Read until `patience` consecutive reads returned nothing."""
    frames: list[Frame] = []
    empty = 0
    while empty < patience:
        found = reader.read()
        frames += found
        empty = 0 if found else empty + 1
    return frames


def events_of(frames: Iterable[Frame]) -> list[bytes]:
    return [event for frame in frames for event in bytes(frame.body).splitlines()]


def read_frames(data: DataDir, start: Position = Position(), *, slot: int = 0) -> list[Frame]:  # noqa: B008
    reader = SlotReader(data, slot, start)
    try:
        return drain(reader)
    finally:
        reader.close()


def read_events(data: DataDir, start: Position = Position(), *, slot: int = 0) -> list[bytes]:  # noqa: B008
    return events_of(read_frames(data, start, slot=slot))


def run_python(program: str, *arguments: object) -> list[str]:
    """Run a separate program, which changes the limits of its process; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class StrictDisk(FakeDisk):
    """A disk that knows which data survives a power failure, and rejects forbidden calls."""

    def __init__(self, loop: FakeLoop, **options: Any) -> None:
        super().__init__(loop, **options)
        self.failed: set[int] = set()  # descriptors of segments with a failed write or sync
        self.durable: dict[int, bytes] = {}  # a segment's bytes at its last sync
        self.stored: list[tuple[int, int, int]] = []  # segment and bytes of each successful commit
        self.submitted = 0

    def create(self) -> FakeSegment:
        assert not self.is_closed, "a segment made after the slot was left"
        assert len(self.segments) < 1000, "segment after segment, without end"
        return super().create()

    def submit(self, fd: int, batch: CommitBatch | None, offset: int, sync: bool) -> None:
        assert not self.is_closed, "used after it was closed"
        assert fd not in self.failed, "written or synced again after a failure"
        assert self.segments[fd - 1].retired is None, "written after it was left"
        if batch is not None:
            assert offset == self.segments[fd - 1].offset
            end = offset + len(batch.sealed())
            is_first = offset == SEGMENT_HEADER_BYTES
            assert end <= self.segment_bytes or is_first, "beyond the segment"
        self.submitted += 1
        super().submit(fd, batch, offset, sync)

    @property
    def is_sync_under_way(self) -> bool:
        return self._job is not None and self._job[3]

    def complete(self, error: int = 0, *, kept: int = 0) -> None:
        """End the job; a failed one leaves the first `kept` bytes in the page cache."""
        assert self._job is not None
        segment, image, offset, sync = self._job
        if error:
            self.failed.add(segment.fd)
            segment.data[offset : offset + min(kept, len(image))] = image[:kept]
        else:
            self.stored.append((segment.id.number, offset, offset + len(image)))
        if sync and not error:
            after = bytearray(segment.data)
            after[offset : offset + len(image)] = image
            self.durable[segment.fd] = bytes(after)
        super().complete(error)

    def retire(self, segment: FakeSegment, *, is_sound: bool) -> None:
        assert segment.retired is None, "left twice"
        assert segment.fd not in self.failed or not is_sound, "a failed segment is not sound"
        if is_sound:
            self.durable[segment.fd] = bytes(segment.data)
        super().retire(segment, is_sound=is_sound)

    def stored_frames(self) -> list[Frame]:
        """Return the frames of successful commits, without those that failed ones left."""
        return [
            frame
            for frame in self.frames()
            if any(n == frame.segment and a <= frame.offset < b for n, a, b in self.stored)
        ]

    def durable_events(self) -> list[tuple[str, bytes]]:
        """Return the events that could be read after a power failure now."""
        survivor = FakeDisk(self._loop, slot=self.slot)
        for segment in self.segments:
            copy = survivor.create()
            copy.data = bytearray(self.durable.get(segment.fd, b""))
        return survivor.events()


class HandFuture:
    """A future that a test resolves; enough of one to be awaited by a coroutine run by hand."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self._callbacks: list[Callable[[HandFuture], None]] = []
        self._is_done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def __await__(self) -> Generator[HandFuture, None, Any]:
        while not self._is_done:
            yield self
        return self.result()

    def done(self) -> bool:
        return self._is_done

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result

    def set_result(self, result: Any, error: BaseException | None = None) -> None:
        assert not self._is_done, "resolved twice"
        self._result, self._error, self._is_done = result, error, True
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)

    def add_done_callback(self, callback: Callable[[HandFuture], None]) -> None:
        if self._is_done:
            self._loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)


class SlowLoop(FakeLoop):
    """A loop whose threads run only when a test lets them, so that creating segments takes time."""

    def __init__(self, *, is_slow: bool = True) -> None:
        super().__init__()
        self.is_slow = is_slow
        self.jobs: deque[tuple[HandFuture, Callable[..., Any], tuple[Any, ...]]] = deque()

    def create_future(self) -> HandFuture:
        return HandFuture(self)

    def run_in_executor(self, _pool: None, function: Callable[..., Any], *arguments: Any) -> Any:
        future = HandFuture(self)
        self.jobs.append((future, function, arguments))
        if not self.is_slow:
            self.run_jobs()
        return future

    def run_job(self) -> None:
        """Let a thread do the oldest job; the loop is notified in its next turn."""
        future, function, arguments = self.jobs.popleft()
        try:
            result = function(*arguments)
        except OSError as error:
            future.set_result(None, error)
        else:
            future.set_result(result)

    def run_jobs(self) -> None:
        while self.jobs:
            self.run_job()


class Ears:
    """Records what waiters are told, and checks that each is told once, about its own ticket."""

    def __init__(self) -> None:
        self.heard: dict[Any, bool] = {}
        self.tickets: dict[Any, int] = {}
        self.calls: list[tuple[list[Any], int, bool]] = []

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        assert waiters, "no waiters"
        self.calls.append((list(waiters), first_ticket, is_stored))
        for place, waiter in enumerate(waiters):
            assert waiter not in self.heard, f"{waiter} heard twice"
            assert self.tickets.get(waiter, first_ticket + place) == first_ticket + place
            self.heard[waiter] = is_stored

    @property
    def stored(self) -> list[Any]:
        return [waiter for waiter, is_stored in self.heard.items() if is_stored]

    @property
    def not_stored(self) -> list[Any]:
        return [waiter for waiter, is_stored in self.heard.items() if not is_stored]


class Spool:
    """A real writer with a strict disk and a loop that is run by hand; events are their waiters."""

    def __init__(
        self,
        *,
        segment_bytes: int = 64 * 2**20,
        is_slow: bool = False,
        names: Iterable[str] = ("demo",),
        other_bytes: int = 0,
        next_number: int = 0,
        **options: Any,
    ) -> None:
        self.loop = SlowLoop(is_slow=is_slow)
        self.disk = StrictDisk(self.loop, segment_bytes=segment_bytes)
        self.disk.other_bytes = other_bytes
        self.disk.next_number = next_number
        self.ears = Ears()
        self.on_heard: Callable[[], object] | None = None
        self.writer = SpoolWriter(
            self.loop,  # type: ignore[arg-type]
            self.disk,  # type: ignore[arg-type]
            self.disk,  # type: ignore[arg-type]
            list(names),
            self._on_stored,
            **options,
        )
        self.loop.turn()

    def _on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        self.ears.on_stored(waiters, first_ticket, is_stored)
        if self.on_heard is not None:
            self.on_heard()

    def add(self, event: bytes, source: int = 0) -> int:
        """Add an event that is its own waiter; return its ticket, or 0 if it is rejected."""
        ticket, rejection = self.writer.add(source, event, 0, event)
        assert (ticket > 0) is (rejection == "")
        if ticket:
            self.ears.tickets[event] = ticket
        return ticket

    def rejection_of(self, event: bytes) -> str:
        """Add an event that is rejected; return the reason."""
        ticket, rejection = self.writer.add(0, event, 0, event)
        assert ticket == 0
        return rejection

    def add_many(self, count: int, size: int = 100, first: int = 0) -> list[bytes]:
        """Add `count` different events of `size` bytes; return them."""
        events = [b"%0*d" % (size, first + number) for number in range(count)]
        for event in events:
            assert self.add(event) > 0
        return events

    def turn(self) -> None:
        self.loop.turn()

    def settle(self) -> None:
        """Let threads and the disk finish all their work, without time passing."""
        while True:
            self.loop.run_jobs()
            self.loop.turn()
            if self.disk.is_busy:
                self.disk.complete()
            elif not self.loop.jobs:
                return


class Closing:
    """A writer's `close`, run by hand."""

    def __init__(self, spool: Spool) -> None:
        self.is_done = False
        self._spool = spool
        self._coroutine = spool.writer.close()
        self.step()

    def step(self) -> None:
        if not self.is_done:
            try:
                self._coroutine.send(None)
            except StopIteration:
                self.is_done = True

    def settle(self) -> None:
        """Let the disk and the threads finish everything for which `close` could wait."""
        self._spool.settle()
        self.step()
        self._spool.settle()
