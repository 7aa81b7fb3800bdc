"""The commit thread with real files: its writes, its results, and that it does not need the GIL."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelfast.spool import Committer
from pixelfast.spool.batch import CommitBatch
from pixelfast.spool.format import SegmentId
from tests.leaks import open_fds
from tests.spool.tools import run_python

SEGMENT = SegmentId(bytes(16), 0, 1)
TIMEOUT_S = 20.0


def make_batch(*events: bytes) -> CommitBatch:
    batch = CommitBatch()
    for event in events or (b'{"n":1}',):
        batch.add(0, event)
    batch.seal([b"web"], SEGMENT, 64)
    return batch


def wait(committer: Committer) -> int:
    """Wait for the end of the job, and return its errno."""
    assert select.select([committer.done_fd], [], [], TIMEOUT_S)[0], "the commit did not end"
    error = committer.finish()
    assert error is not None
    return error


def commit(
    committer: Committer, fd: int, batch: CommitBatch | None, offset: int = 0, *, sync: bool = True
) -> int:
    committer.submit(fd, batch, offset, sync)
    return wait(committer)


@pytest.fixture
def committer() -> Iterator[Committer]:
    committer = Committer()
    yield committer
    committer.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def test_a_batch_is_written_at_its_offset(committer: Committer, fd: int) -> None:
    os.pwrite(fd, b"\xff" * 4096, 0)
    batch = make_batch()
    image = batch.written()
    assert commit(committer, fd, batch, 64) == 0
    assert b"\xff" * 64 + image + b"\xff" * (4096 - 64 - len(image)) == os.pread(fd, 8192, 0)


def test_consecutive_commits_are_all_written(committer: Committer, fd: int) -> None:
    images = b""
    for number in range(200):
        batch = make_batch(b"%d" % number)
        assert commit(committer, fd, batch, len(images), sync=number % 50 == 0) == 0
        images += batch.written()
    assert images == os.pread(fd, 2**20, 0)


def test_a_batch_of_megabytes_is_written_completely(committer: Committer, fd: int) -> None:
    batch = make_batch(*[b"%09d" % number * 1000 for number in range(1000)])
    assert commit(committer, fd, batch) == 0
    assert batch.written() == os.pread(fd, 2**24, 0)


def test_a_batch_that_was_never_sealed_writes_nothing(committer: Committer, fd: int) -> None:
    batch = CommitBatch()
    batch.add(0, b"{}")
    assert commit(committer, fd, batch) == 0
    assert os.fstat(fd).st_size == 0


@pytest.mark.parametrize("sync", [False, True])
def test_it_syncs_only_on_request(committer: Committer, sync: bool) -> None:
    # A null device accepts every write and rejects every sync, so its errno shows a sync.
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        expected = errno.EINVAL if sync else 0
        assert expected == commit(committer, fd, make_batch(), sync=sync)
        assert expected == commit(committer, fd, None, sync=sync)
    finally:
        os.close(fd)


def test_a_full_device_is_reported_and_the_next_commit_works(committer: Committer, fd: int) -> None:
    full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
    try:
        batch = make_batch()
        assert commit(committer, full, batch) == errno.ENOSPC
        assert commit(committer, fd, batch) == 0
        assert batch.written() == os.pread(fd, 4096, 0)
    finally:
        os.close(full)


@pytest.mark.parametrize("has_batch", [False, True])
def test_a_closed_descriptor_is_reported(committer: Committer, fd: int, has_batch: bool) -> None:
    closed = os.dup(fd)
    os.close(closed)
    assert commit(committer, closed, make_batch() if has_batch else None) == errno.EBADF


def test_a_file_that_is_open_only_for_reading_is_reported(
    committer: Committer, tmp_path: Path
) -> None:
    (tmp_path / "read-only").touch()
    fd = os.open(tmp_path / "read-only", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert commit(committer, fd, make_batch()) == errno.EBADF
    finally:
        os.close(fd)


def test_a_short_write_is_continued_until_the_error(tmp_path: Path) -> None:
    # With a limit of file sizes, the first write is short and the second one fails, as on a file
    # system that becomes full.
    program = """
import os, resource, sys
from pixelfast.spool import Committer
from tests.spool.test_committer import commit, make_batch
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
committer = Committer()
batch = make_batch(b"x" * 30_000)
print(commit(committer, fd, batch, 100), os.fstat(fd).st_size)
print(commit(committer, fd, make_batch(b"y"), 100))
committer.close()
"""
    assert run_python(program, tmp_path / "limited") == [str(errno.EFBIG), "10000", "0"]


def test_there_is_never_more_than_one_job(committer: Committer, fd: int) -> None:
    batch = make_batch()
    committer.submit(fd, batch, 0, True)
    assert committer.is_busy
    with pytest.raises(RuntimeError):
        committer.submit(fd, batch, 4096, True)
    assert wait(committer) == 0
    assert not committer.is_busy
    assert len(batch.written()) == os.fstat(fd).st_size


def test_finish_without_a_job_returns_none(committer: Committer, fd: int) -> None:
    assert committer.finish() is None
    assert commit(committer, fd, make_batch()) == 0
    assert committer.finish() is None


def test_the_batch_stays_alive_while_it_is_written(committer: Committer, fd: int) -> None:
    batch = make_batch()
    before = sys.getrefcount(batch)
    committer.submit(fd, batch, 0, True)
    assert before + 1 == sys.getrefcount(batch)
    assert wait(committer) == 0
    assert before == sys.getrefcount(batch)


def test_closing_waits_for_the_job_under_way(fd: int) -> None:
    batch = make_batch(*[b"%08d" % number * 4000 for number in range(500)])
    for _ in range(3):
        os.ftruncate(fd, 0)
        committer = Committer()
        committer.submit(fd, batch, 0, True)
        committer.close()
        assert batch.written() == os.pread(fd, 2**25, 0)


def test_closing_waits_even_if_its_descriptor_has_a_high_number() -> None:
    # select() does not support descriptors from 1,024 on, which a collector with many sockets has.
    program = """
import os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
from pixelfast.spool import Committer
from tests.spool.test_committer import make_batch
while os.open("/dev/null", os.O_RDWR) < 1100:
    pass
committer = Committer()
committer.submit(os.open("/dev/null", os.O_RDWR), make_batch(), 0, False)
committer.close()
print("closed")
"""
    assert run_python(program) == ["closed"]


def test_closing_twice_is_allowed() -> None:
    committer = Committer()
    committer.close()
    committer.close()


def test_a_closed_committer_accepts_no_job(fd: int) -> None:
    # If it were accepted, the job would never end, and no waiter would be told.
    committer = Committer()
    committer.close()
    with pytest.raises(RuntimeError):
        committer.submit(fd, make_batch(), 0, True)


def test_nothing_is_left_behind(fd: int) -> None:
    before = open_fds(), threading.active_count()
    for _ in range(5):
        committer = Committer()
        assert threading.active_count() == before[1] + 1
        assert commit(committer, fd, make_batch()) == 0
        committer.close()
    assert before == (open_fds(), threading.active_count())


def test_its_descriptors_are_not_inherited(committer: Committer) -> None:
    assert not os.get_inheritable(committer.done_fd)


@pytest.mark.skipif("PIXELFAST_TRACE" in os.environ, reason="the tracer takes the GIL")
def test_a_commit_completes_while_the_gil_is_held(committer: Committer, fd: int) -> None:
    # With this interval, the main thread releases the GIL only when it waits, and it does not wait.
    # The witness is a Python thread that would run at once if the GIL were released.
    barrier = threading.Lock()
    barrier.acquire()
    went_on: list[bool] = []
    witness = threading.Thread(target=lambda: went_on.append(barrier.acquire()))
    witness.start()
    assert commit(committer, fd, make_batch()) == 0  # by now the commit thread has started
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        barrier.release()
        committer.submit(fd, make_batch(), 0, True)
        give_up_s = time.monotonic() + TIMEOUT_S
        while (error := committer.finish()) is None and time.monotonic() < give_up_s:
            pass
        is_held = not went_on
    finally:
        sys.setswitchinterval(interval_s)
        witness.join(TIMEOUT_S)
    assert (0, True) == (error, is_held)
