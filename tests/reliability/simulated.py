"""Writer, reader and retention on the simulated disk, in any order, with power cuts at any step.

The machine adds events, lets threads and commits succeed or fail, delivers, moves the cursor,
recycles or removes segments, and cuts the power between two of these steps or between two system
calls of one. After each cut, every event that was acknowledged must have been delivered, or be
readable from the cursor on; no event that was never added may be read; and no event that was
delivered may be read again, unless a commit of it failed. Segments are recycled all the time, so
that nearly every log has old frames after its end.

As a program (`python -m tests.reliability.simulated`), it searches for deliberate mistakes.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import sys
import tempfile
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pixelfast.spool import DataDir, Position, SlotFiles, SlotReader, SpoolWriter
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.frames import FRAME_END_BYTES
from pixelfast.spool.retention import remove_read_segments
from pixelfast.spool.segments import SegmentFile
from tests.reliability.simdisk import PowerCut, SimulatedDisk
from tests.spool.tools import Ears, SlowLoop, read_events

__all__ = ["FOUND", "CrashMachine", "main"]

FOUND = 3  # the exit status for a loss; 1 means any other error
SEGMENT_BYTES = 4096
numbers = st.integers(0, 2**20)
errors = st.sampled_from([EIO, ENOSPC, EDQUOT])


class HandCommitter:
    """Commits one job when a test lets it, as `Committer` does: it writes, then syncs."""

    done_fd = 99

    def __init__(self, loop: SlowLoop, disk: SimulatedDisk) -> None:
        self._loop = loop
        self._disk = disk
        self._job: tuple[int, bytes, int, bool] | None = None
        self._result: int | None = None
        self.failed = b""  # the bytes of the commits that failed

    @property
    def is_busy(self) -> bool:
        return self._job is not None

    @property
    def reach(self) -> int:
        """The offset of the current commit in its segment."""
        assert self._job is not None
        return self._job[2]

    def submit(self, fd: int, batch: CommitBatch | None, offset: int, sync: bool) -> None:
        self._job = (fd, batch.written() if batch is not None else b"", offset, sync)
        self._frames_bytes = len(batch.sealed()) if batch is not None else 0

    def finish(self) -> int | None:
        result, self._result = self._result, None
        if result is not None:
            self._job = None
        return result

    def complete(self, error: int = 0, kept: int | None = None) -> None:
        """End the job; a failed one has written its first `kept` bytes, or failed to sync."""
        assert self._job is not None
        fd, data, offset, sync = self._job
        try:
            os.pwrite(fd, data if kept is None else data[:kept], offset)
            if sync and not error:
                os.fdatasync(fd)
        except OSError as failure:
            error = failure.errno or EIO
        if error:
            self._disk.poison(fd)
            self.failed += data
        elif data:
            behind = os.pread(fd, FRAME_END_BYTES, offset + self._frames_bytes)
            assert not any(behind), "no zeros behind a commit"
        self._result = error
        self._loop.readers[self.done_fd]()


class KnownFiles(SlotFiles):
    """Remembers open descriptors, which a crash closes."""

    open_fds: set[int]
    recycled = 0

    def create(self) -> SegmentFile:
        spares = self._data.spares(0)
        segment = super().create()
        KnownFiles.recycled += len(spares) > len(self._data.spares(0))
        self.open_fds.add(segment.fd)
        return segment

    def retire(self, segment: SegmentFile, *, is_sound: bool) -> None:
        self.open_fds.discard(segment.fd)
        super().retire(segment, is_sound=is_sound)


class CrashMachine(RuleBasedStateMachine):
    """Every event is unique and is its own waiter."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pixelfast-"))
        self.names = itertools.count()
        self.added: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.delivered: set[bytes] = set()
        self.uncertain: set[bytes] = set()  # a commit of them failed, and may have been written
        self.read: set[bytes] = set()  # by delivery
        self.cursor = Position()  # the one on the disk
        self.reached = Position()
        self.rng = random.Random(0)
        self.files: KnownFiles | None = None
        self.reader: SlotReader | None = None
        root = self.folder / f"{next(self.names)}"
        root.mkdir()
        self.boot(root)

    def boot(self, root: Path) -> None:
        """Start on the existing data."""
        self.disk = SimulatedDisk(root)
        self.disk.on_cut = self.save_image
        self.guarded(self.open)

    def open(self) -> None:
        self.data = DataDir.open(self.disk.root / "data")
        self.loop = SlowLoop()
        self.ears = Ears()
        self.committer = HandCommitter(self.loop, self.disk)
        KnownFiles.open_fds = set()
        self.files = KnownFiles(self.data, 0, SEGMENT_BYTES)
        self.reader = SlotReader(self.data, 0, self.cursor)
        self.reached = self.cursor
        self.read = set()
        self.writer = SpoolWriter(
            self.loop,  # type: ignore[arg-type]
            self.files,
            self.committer,  # type: ignore[arg-type]
            ["web"],
            self.on_stored,
        )

    def on_stored(self, waiters: list[Any], first_ticket: int, is_stored: bool) -> None:
        self.ears.on_stored(waiters, first_ticket, is_stored)
        if is_stored:
            self.acked.update(waiters)

    def guarded(self, function: Any, *arguments: Any) -> None:
        """Call a function that uses the disk; if the power is cut meanwhile, reboot."""
        try:
            with self.disk.in_use():
                function(*arguments)
        except PowerCut:
            self.reboot()

    def save_image(self) -> None:
        self.image = self.folder / f"{next(self.names)}"
        self.disk.crash_image(self.image, self.rng)

    def reboot(self) -> None:
        """Forget everything in memory, check the image of the power cut, and start on it."""
        self.note_failed()
        self.let_go()
        shutil.rmtree(self.disk.root)
        self.check(self.image)
        self.boot(self.image)

    def let_go(self) -> None:
        if self.reader is not None:
            self.reader.close()
        if self.files is not None:
            for fd in KnownFiles.open_fds:
                os.close(fd)
            self.files.close()
        self.reader = self.files = None

    def note_failed(self) -> None:
        self.uncertain.update(re.findall(rb"\d{8,}(?=\n)", self.committer.failed))
        self.committer.failed = b""

    def check(self, image: Path) -> None:
        """Check a copy of the image, because opening it creates missing files."""
        copy = self.folder / "copy"
        shutil.copytree(image, copy)
        found = set(read_events(DataDir.open(copy / "data"), self.cursor))
        shutil.rmtree(copy)
        lost = self.acked - self.delivered - found
        assert not lost, f"lost: {len(lost)} of {len(self.acked)} acknowledged events"
        invented = (found | self.delivered) - self.added
        assert not invented, f"invented: {len(invented)} events"
        again = found & self.delivered - self.uncertain
        assert not again, f"again: {len(again)} events that were delivered and passed"

    @rule(size=st.one_of(st.integers(8, 60), st.integers(8, 900)), count=st.integers(1, 6))
    def add(self, size: int, count: int) -> None:
        self._add(size, count)

    def _add(self, size: int, count: int) -> None:
        for _ in range(count):
            event = b"%0*d" % (size, len(self.added))
            if self.writer.add(0, event, 0, event)[0]:
                self.added.add(event)

    @rule()
    def turn(self) -> None:
        self.guarded(self.loop.turn)

    @rule(count=st.integers(1, 6))
    def settle(self, count: int) -> None:
        """Run several rounds without failures."""
        boot = self.disk
        for _ in range(count):
            if self.disk is boot:
                self._settle()

    def _settle(self) -> None:
        boot = self.disk
        for step in (self.loop.run_jobs, self.loop.turn):
            if self.disk is boot:
                self.guarded(step)
        if self.disk is boot and self.committer.is_busy:
            self.guarded(self.committer.complete)

    @rule(fails=st.booleans())
    def fill_up(self, fails: bool) -> None:
        self._fill_up(fails=fails)

    def _fill_up(self, *, fails: bool) -> None:
        """Fill the segment until it can be recycled. With `fails`, its last commit fails."""
        boot, place = self.disk, len(self.added)
        for _ in range(60):
            if self.disk is not boot or self.writer.rejection:
                return
            self._add(40, 2)
            self.guarded(self.loop.turn)
            if self.disk is not boot or not self.committer.is_busy:
                continue
            is_nearly_full = self.committer.reach >= SEGMENT_BYTES - SEGMENT_BYTES // 16
            if fails and is_nearly_full and len(self.added) > place + 2:
                self.guarded(self.committer.complete, EIO)
                return
            self.guarded(self.committer.complete)
            if self.disk is boot:
                self.guarded(self.loop.run_jobs)
            if is_nearly_full:
                return

    @rule(number=numbers, calls=st.integers(0, 15))
    def recycle_under_a_cut(self, number: int, calls: int) -> None:
        """Cut the power near the moment at which a spare becomes the next segment."""
        boot = self.disk
        for _ in range(2):
            if self.disk is boot:
                self._fill_up(fails=False)
            if self.disk is boot:
                self._catch_up()
        self.rng = random.Random(number)
        self.disk.cut_after = calls
        self._fill_up(fails=False)

    @rule(number=numbers)
    def cut_the_power_long_after_a_failure(self, number: int) -> None:
        """Fail at the end of a segment, and cut the power when it may have been recycled."""
        boot = self.disk
        for fails in (True, False, False):
            if self.disk is boot:
                self._fill_up(fails=fails)
            for _ in range(3):
                if self.disk is boot:
                    self._settle()
            if self.disk is boot:
                self._catch_up()
        if self.disk is boot:
            self._add(40, 6)
            self._settle()
            self._cut(number)

    @precondition(lambda self: self.loop.jobs)
    @rule()
    def let_a_thread_finish(self) -> None:
        self.guarded(self.loop.run_job)

    @precondition(lambda self: self.committer.is_busy)
    @rule()
    def complete(self) -> None:
        self.guarded(self.committer.complete)

    @precondition(lambda self: self.committer.is_busy)
    @rule(error=errors, kept=st.one_of(st.none(), st.integers(0, 2000)))
    def fail(self, error: int, kept: int | None) -> None:
        self.guarded(self.committer.complete, error, kept)

    @rule(
        error=errors,
        call=st.sampled_from(
            ["open", "posix_fallocate", "pwrite", "fsync", "ftruncate", "unlink", "rename"]
        ),
    )
    def let_a_call_fail(self, call: str, error: int) -> None:
        self.disk.errors = [(call, error)]

    @rule(seconds=st.sampled_from([0.3, 1.1, 2.5]))
    def pass_time(self, seconds: float) -> None:
        self.guarded(self.loop.advance, seconds)

    @rule()
    def read_on(self) -> None:
        self._read_on()

    def _read_on(self) -> None:
        assert self.reader is not None
        for frame in self.reader.read():
            self.read.update(bytes(frame.body).splitlines())
            self.reached = Position(frame.segment, frame.offset + frame.length)

    @rule()
    def deliver(self) -> None:
        self._deliver()

    def _deliver(self) -> None:
        """Deliver the events that were read, and then move the cursor."""
        self.delivered |= self.read
        self.cursor = self.reached

    @rule()
    def catch_up(self) -> None:
        self._catch_up()

    def _catch_up(self) -> None:
        """Deliver everything, and recycle or remove the segments that were read."""
        for _ in range(8):
            self._read_on()
        self._deliver()
        self.guarded(self.remove)

    @rule()
    def remove_what_is_read(self) -> None:
        self.guarded(self.remove)

    def remove(self) -> None:
        try:
            remove_read_segments(self.data, 0, [self.cursor.segment], recycled_bytes=SEGMENT_BYTES)
        except OSError:
            return  # retried a second later

    @rule(number=numbers)
    def cut_the_power(self, number: int) -> None:
        self._cut(number)

    def _cut(self, number: int) -> None:
        self.rng = random.Random(number)
        self.save_image()
        self.reboot()

    @rule(number=numbers, calls=st.integers(0, 12))
    def cut_the_power_soon(self, number: int, calls: int) -> None:
        self.rng = random.Random(number)
        self.disk.cut_after = calls

    def teardown(self) -> None:
        try:
            if self.files is not None:  # no check has failed yet
                self.note_failed()
                self.save_image()
                self.let_go()
                self.check(self.image)
        finally:
            self.let_go()
            shutil.rmtree(self.folder)


def main(examples: int = 400, chance: int | None = None) -> int:
    """Search for a loss; return `FOUND` if there is one, otherwise 0.

    `chance` is the seed of the examples; without it, they are the same each time.
    """
    found = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=chance is None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with structlog.testing.capture_logs():
        try:
            machine = CrashMachine if chance is None else seed(chance)(CrashMachine)
            run_state_machine_as_test(machine, settings=found)
        except AssertionError as error:
            print(error)
            return FOUND
    print("nothing lost, nothing invented")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
