"""Group commit: events in; one write and one sync for all that wait; acknowledgements out.

The rules it keeps:

1.  One commit is in flight at a time; what arrives meanwhile is the next one. So a commit starts at
    once when the disk is idle, and commits grow by themselves when it is not.
2.  A waiter hears exactly once of its event: stored, or not. The tickets of a batch count up in the
    order of its events.
3.  What is not stored after `max_wait_s` is answered as not stored, and new events are refused until
    the disk has caught up. So are those that would make more than `max_waiting_bytes` wait.
4.  After a failed write or sync a segment is never written or synced again: the kernel counts its
    dirty pages as clean by then. The batch goes once more, whole, into a new segment. If that fails
    too, all that waits hears so, events are refused, and a new segment is tried every second.
5.  With more than `max_bytes` of segments, or less than `min_free` on the disk, events are refused
    until delivery has made room. With `drop_oldest` delivery lets the oldest expire instead; then
    they are refused only where it does not keep up: 10 % beyond, or under half of `min_free`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from pixelfast.spool.frames cimport CommitBatch

import os
from collections import deque
from errno import EDQUOT, EIO, ENOSPC

import structlog

from pixelfast.spool.room import Room

__all__ = ["REFUSALS", "SpoolWriter"]

REFUSALS = {
    Refusal.FULL: "spool-full",
    Refusal.OVERLOADED: "spool-overloaded",
    Refusal.DISK_ERROR: "disk-error",
    Refusal.CLOSED: "shutting-down",
}

cdef enum:
    COMMIT_BYTES = 1048576      # a batch of this size is closed and queued
    MAX_EVENT_BYTES = 1048576
    KEPT_BATCHES = 4

cdef double CHECK_INTERVAL_S = 0.25
cdef double MEASURE_INTERVAL_S = 1.0
cdef double SYNC_INTERVAL_S = 1.0   # ack = written: the longest time without a sync
cdef double RETRY_INTERVAL_S = 1.0


cdef class SpoolWriter:

    def __init__(
        self,
        loop,
        files,
        committer,
        list names not None,
        on_stored,
        *,
        str ack="synced",
        max_bytes=20 * 2**30,
        min_free=0,
        str on_full="reject",
        max_waiting_bytes=32 * 2**20,
        max_wait_s=2.0,
        compress=None,
    ):
        self._loop = loop
        self._files = files
        self._committer = committer
        self._on_stored = on_stored
        self._log = structlog.get_logger("spool").bind(slot=files.slot)
        self.names = [name.encode("ascii") for name in names]
        self._syncs = ack == "synced"
        self.acks_at_once = ack == "received"
        self._room = Room(max_bytes, min_free, on_full, files.slot)
        self._free_bytes = min_free  # until it is measured
        self._max_waiting_bytes = max_waiting_bytes
        self._max_commit_bytes = min(COMMIT_BYTES, files.segment_bytes // 4)
        self._max_wait_s = max_wait_s
        self._compress = compress
        self._open = CommitBatch()
        self._queue = deque()
        self._spares = []
        self._number_before = files.next_number - 1
        self._last_sync_s = loop.time()
        loop.add_reader(committer.done_fd, self._on_commit_done)
        self._prepare_next()
        self._check()

    # --- taking events -----------------------------------------------------------------------

    cdef int64_t append(
        self, uint32_t source, bytes event, int64_t received_ms, object waiter
    ) except -99:
        cdef Py_ssize_t length = PyBytes_GET_SIZE(event)
        memcpy(self.reserve(length), PyBytes_AS_STRING(event), length)
        return self.take(source, length, received_ms, waiter)

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        # Where an event may be written, of `size` bytes at the most; it counts once it is taken.
        cdef CommitBatch batch = self._open
        if batch.gathered_bytes() >= self._max_commit_bytes:
            self._queue.append(batch)
            batch = self._open = self._fresh_batch()
        return batch.reserve(size)

    cdef int64_t take(
        self, uint32_t source, Py_ssize_t length, int64_t received_ms, object waiter
    ) except -99:
        # The ticket of the event at `reserve`, or a Refusal, negated.
        cdef CommitBatch batch = self._open
        if self.refusal:
            return -self.refusal
        if self.waiting_bytes + length >= self._max_waiting_bytes:
            return -<int>Refusal.OVERLOADED
        self._ticket += 1
        if batch.count == 0:
            batch.since_s = self._loop.time()
            batch.first_ticket = self._ticket
        batch.take(source, length, received_ms)
        if not self.acks_at_once:
            batch.waiters.append(waiter)
        self.waiting_bytes += length + 1
        if not self._is_scheduled and self._in_flight is None:
            # Not at once: all requests that this turn of the loop reads go together.
            self._is_scheduled = True
            self._loop.call_soon(self._start_commit)
        return self._ticket

    @property
    def is_ready(self):
        return self._segment is not None and not self.refusal

    def add(self, uint32_t source, bytes event not None, received_ms=0, waiter=None):
        if source >= <uint32_t>len(self.names):
            raise ValueError(f"source {source} of {len(self.names)}")
        if len(event) > MAX_EVENT_BYTES:
            raise ValueError(f"event is {len(event):,} bytes, limit {MAX_EVENT_BYTES:,}")
        return self.append(source, event, received_ms, waiter)

    # --- committing --------------------------------------------------------------------------

    def _start_commit(self):
        cdef CommitBatch batch
        self._is_scheduled = False
        if self._in_flight is not None or self._segment is None or self._committer.is_busy:
            return
        batch = self._queue[0] if self._queue else self._open
        if batch.count == 0:
            if self._has_unsynced and self._is_sync_due():
                self._submit(None, True)
            elif self._drained is not None and not self._drained.done():
                self._drained.set_result(None)
            return
        if self._segment.offset + batch.sealed_bytes(self.names) > self._files.segment_bytes:
            self._leave_segment(is_sound=True)
            if self._segment is None:
                return  # `_on_prepared` goes on
        if batch is self._open:
            self._open = self._fresh_batch()
        else:
            self._queue.popleft()
        # Tickets count up event by event, and so do numbers: a batch that is committed again keeps
        # its own, and those of one that was given up are not used again.
        first_number = self._number_before + batch.first_ticket
        place = self._segment.id, self._segment.offset
        batch.seal(self.names, *place, first_number, self._compress)
        self._in_flight = batch
        self._submit(batch, self._syncs or self._is_sync_due())

    def _is_sync_due(self):
        return self._loop.time() - self._last_sync_s >= SYNC_INTERVAL_S

    def _submit(self, CommitBatch batch, bint sync):
        self._submitted_s = self._loop.time()
        if sync:
            self._last_sync_s = self._submitted_s
            self._has_unsynced = False
        elif not self._has_unsynced:
            self._has_unsynced = True
            self._loop.call_later(SYNC_INTERVAL_S, self._sync_alone)
        self._committer.submit(self._segment.fd, batch, self._segment.offset, sync)

    def _sync_alone(self):
        # ack = written, and no commit came along that would have synced.
        if not self._has_unsynced or self._segment is None or self._is_closed:
            return
        if not self._committer.is_busy:  # else the end of that commit sees to it
            self._submit(None, True)

    def _on_commit_done(self):
        cdef CommitBatch batch = self._in_flight
        cdef list waiters
        cdef int64_t first_ticket
        error = self._committer.finish()
        if error is None:
            return
        self._in_flight = None
        self.commit_seconds += self._loop.time() - self._submitted_s
        if error:
            self._on_failure(batch, error)
        elif batch is None:
            self._start_commit()
        else:
            self._segment.offset += batch.image_bytes
            self.commits += 1
            self.stored_events += batch.count
            self.stored_bytes += batch.image_bytes
            self.used_bytes += batch.image_bytes
            waiters, first_ticket = batch.waiters, batch.first_ticket
            self._release(batch)
            self._start_commit()  # before the answers: the disk works while they go out
            if waiters:
                self._on_stored(waiters, first_ticket, True)

    # --- segments ----------------------------------------------------------------------------

    def _leave_segment(self, *, bint is_sound):
        # A sound one is synced there, so nothing of ack = written stays behind.
        self._in_thread(self._retire, self._segment, is_sound)
        self._has_unsynced = False
        self._segment, self._next = self._next, None
        self._prepare_next()

    def _retire(self, segment, is_sound):
        try:
            self._files.retire(segment, is_sound=is_sound)
        except OSError as error:
            self._log.error("segment_close_failed", segment=segment.path.name, error=str(error))

    def _prepare_next(self):
        if not self._is_preparing and self._next is None and not self._is_closed:
            self._is_preparing = True
            self._in_thread(self._files.create).add_done_callback(self._on_prepared)

    def _on_prepared(self, future):
        self._is_preparing = False
        if self._prepared is not None and not self._prepared.done():
            self._prepared.set_result(None)
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._log.error("segment_create_failed", error=str(error))
            if self._segment is None and not self._broken:
                self._give_up(getattr(error, "errno", None) or EIO)
            elif not self._broken:
                self._loop.call_later(RETRY_INTERVAL_S, self._prepare_next)
        elif self._is_closed:
            self._retire(future.result(), True)
        else:
            self._next = future.result()
            if self._segment is None and not self._broken:
                self._take_next()

    def _take_next(self):
        self._segment, self._next = self._next, None
        self._prepare_next()
        self._start_commit()

    def _in_thread(self, function, *arguments):
        return self._loop.run_in_executor(None, function, *arguments)

    # --- when the disk fails -----------------------------------------------------------------

    def _on_failure(self, CommitBatch batch, int error):
        self.failed_commits += 1
        self._log.error("commit_failed", segment=self._segment.path.name, error=os.strerror(error))
        self._leave_segment(is_sound=False)
        if batch is None:
            self._start_commit()
        elif batch.has_failed:
            self._abandon(batch)
            self._give_up(error)
        else:
            batch.has_failed = True
            self._queue.appendleft(batch)
            self._start_commit()

    def _give_up(self, int error):
        # No event can be stored now: all that wait hear so. `_recover` tries again.
        # A segment that was made ahead stays: nothing was written to it.
        self._broken = error
        self._refresh_refusal()
        while self._queue:
            self._abandon(self._queue.popleft())
        if self._open.count:
            batch, self._open = self._open, self._fresh_batch()
            self._abandon(batch)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._loop.call_later(RETRY_INTERVAL_S, self._recover)

    def _recover(self):
        if self._is_closed:
            return
        if self._segment is None and self._next is None:
            self._prepare_next()
            self._loop.call_later(RETRY_INTERVAL_S, self._recover)
            return
        self._log.warning("disk_is_back")
        self._broken = 0
        self._refresh_refusal()
        if self._segment is None:
            self._take_next()

    def _abandon(self, CommitBatch batch):
        waiters, first_ticket = batch.waiters, batch.first_ticket
        if self.acks_at_once:
            self.lost_events += batch.count
        self._release(batch)
        if waiters:
            self._on_stored(waiters, first_ticket, False)

    cdef CommitBatch _fresh_batch(self):
        return <CommitBatch>self._spares.pop() if self._spares else CommitBatch()

    def _release(self, CommitBatch batch):
        self.waiting_bytes -= batch.event_bytes
        batch.clear()
        if len(self._spares) < KEPT_BATCHES:
            self._spares.append(batch)

    # --- bounds ------------------------------------------------------------------------------

    def _check(self):
        cdef CommitBatch batch
        if self._is_closed:
            return
        now = self._loop.time()
        latest = now - self._max_wait_s
        self._is_late = False
        batch = self._in_flight
        if batch is not None and batch.since_s < latest:
            # The disk may store it yet; its waiters have waited long enough.
            self._is_late = True
            if batch.waiters and not self.acks_at_once:
                waiters, batch.waiters = batch.waiters, []
                self._on_stored(waiters, batch.first_ticket, False)
        if not self.acks_at_once:
            while self._queue and self._queue[0].since_s < latest:
                self._is_late = True
                self._abandon(self._queue.popleft())
            if self._open.count and self._open.since_s < latest:
                self._is_late = True
                batch, self._open = self._open, self._fresh_batch()
                self._abandon(batch)
        if now - self._measured_s >= MEASURE_INTERVAL_S:
            self._measured_s = now
            measuring = self._in_thread(self._files.measure, self._segment)
            measuring.add_done_callback(self._on_measured)
        self._refresh_refusal()
        self._loop.call_later(CHECK_INTERVAL_S, self._check)

    def _on_measured(self, future):
        if not future.cancelled() and future.exception() is None:
            self.used_bytes, self._free_bytes = future.result()
            self._refresh_refusal()

    def _refresh_refusal(self):
        self._is_full = self._room.is_full(self.used_bytes + self.waiting_bytes, self._free_bytes)
        if self._is_closing:
            self.refusal = Refusal.CLOSED
        elif self._broken:
            is_full = self._broken in (ENOSPC, EDQUOT)
            self.refusal = Refusal.FULL if is_full else Refusal.DISK_ERROR
        elif self._is_full:
            self.refusal = Refusal.FULL
        elif self._is_late:
            self.refusal = Refusal.OVERLOADED
        else:
            self.refusal = 0

    async def close(self):
        # Takes no more events, stores all that wait, leaves the slot.
        if self._is_closing:
            return
        self._is_closing = True
        self._refresh_refusal()
        if not self._broken:
            self._drained = self._loop.create_future()
            self._start_commit()
            await self._drained
        self._is_closed = True
        if self._is_preparing:  # the slot is given back once nothing more is made in it
            self._prepared = self._loop.create_future()
            await self._prepared
        self._loop.remove_reader(self._committer.done_fd)
        self._committer.close()
        for segment in (self._segment, self._next):
            if segment is not None:
                self._retire(segment, True)
        self._files.close()
