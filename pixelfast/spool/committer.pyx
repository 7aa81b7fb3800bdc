"""The commit thread: pwrite and fdatasync in one long function that never needs the GIL.

A Python thread that does the same beside a busy event loop waits for the GIL after each system
call: a commit takes 10.6 ms instead of 0.4 ms. The two sides pass a job to each other in a struct
and wake each other through eventfds. There is never more than one job.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t
from posix.unistd cimport close, fdatasync, pwrite, read, write

import os
import select
import threading

from pixelfast.spool.batch cimport CommitBatch
from pixelfast.spool.histogram cimport Histogram, add_count, add_duration, figures_of

__all__ = ["Committer"]

cdef struct Job:
    int fd                  # -1: end the thread
    const char* data
    size_t length           # 0: only sync
    int64_t offset
    bint sync
    int error               # 0, or the errno of what failed
    int64_t sync_ns         # how long the sync took


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef void _carry_out(Job* job) noexcept nogil:
    cdef ssize_t written
    cdef size_t done = 0
    cdef int64_t began_ns
    job.error = 0
    while done < job.length:
        # Continue after short writes: a full tmpfs writes a part before it returns ENOSPC.
        written = pwrite(job.fd, job.data + done, job.length - done, <off_t>(job.offset + done))
        if written < 0:
            if errno == EINTR:
                continue
            job.error = errno
            return
        done += written
    if job.sync:
        began_ns = _now_ns()
        while fdatasync(job.fd) < 0:
            if errno != EINTR:
                job.error = errno
                return
        job.sync_ns = _now_ns() - began_ns


cdef bint _wait(int fd) noexcept nogil:
    cdef uint64_t count
    while read(fd, &count, 8) != 8:
        if errno != EINTR:
            return False
    return True


cdef void _wake(int fd) noexcept nogil:
    cdef uint64_t one = 1
    while write(fd, &one, 8) != 8:
        if errno != EINTR:
            return


cdef void _serve(Job* job, int request_fd, int done_fd) noexcept nogil:
    while _wait(request_fd) and job.fd >= 0:
        _carry_out(job)
        _wake(done_fd)


cdef class Committer:
    cdef Job _job
    cdef int _request_fd
    cdef readonly int done_fd
    cdef readonly bint is_busy
    cdef CommitBatch _batch     # keeps the bytes alive that the thread writes
    cdef object _thread
    cdef int64_t _submitted_ns
    cdef Histogram _commit_durations
    cdef Histogram _commit_events
    cdef Histogram _sync_durations

    def __cinit__(self):
        self._request_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.done_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def _run(self):
        with nogil:
            _serve(&self._job, self._request_fd, self.done_fd)

    def submit(self, int fd, CommitBatch batch, int64_t offset, bint sync):
        if self.is_busy:
            raise RuntimeError("a commit is under way")
        if self._request_fd < 0:
            raise RuntimeError("the committer is closed")
        self._batch = batch
        self._job.fd = fd
        self._job.data = batch.image if batch is not None else NULL
        self._job.length = <size_t>batch.written_bytes if batch is not None else 0
        self._job.offset = offset
        self._job.sync = sync
        self.is_busy = True
        self._submitted_ns = _now_ns()
        _wake(self._request_fd)

    def finish(self):
        cdef uint64_t count
        if not self.is_busy or read(self.done_fd, &count, 8) != 8:
            return None
        self.is_busy = False
        if not self._job.error:
            self._count()
        self._batch = None
        return self._job.error

    cdef void _count(self) noexcept:
        if self._job.sync:
            add_duration(&self._sync_durations, self._job.sync_ns)
        if self._batch is not None:
            add_duration(&self._commit_durations, _now_ns() - self._submitted_ns)
            add_count(&self._commit_events, self._batch.count)

    def figures(self):
        return {
            "commit_durations": figures_of(&self._commit_durations, 1e-9),
            "commit_events": figures_of(&self._commit_events, 1.0),
            "sync_durations": figures_of(&self._sync_durations, 1e-9),
        }

    def close(self):
        if self._request_fd < 0:
            return
        if self.is_busy:
            done = select.poll()
            done.register(self.done_fd, select.POLLIN)
            done.poll()  # the thread still reads the job and the batch
            self.finish()
        self._job.fd = -1
        _wake(self._request_fd)
        self._thread.join()
        close(self._request_fd)
        close(self.done_fd)
        self._request_fd = self.done_fd = -1
