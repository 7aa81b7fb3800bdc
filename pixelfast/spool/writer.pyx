"""Group commit: one write and one sync for all waiting events, then their acknowledgements.

`states` has the states of a writer.

Rules:

1.  One commit is in flight at a time, and the events that arrive meanwhile form the next one. A
    commit therefore starts at once when the disk is idle, and commits grow when it is busy.
2.  A waiter is told exactly once whether its event is stored. The tickets of a batch count up in
    the order of its events.
3.  Events that are not stored within `max_wait_s` are reported as not stored, and new events are
    rejected until the disk has caught up. So are those that exceed `max_waiting_bytes`.
4.  After a failed write or sync, a segment is never written or synced again, because the kernel has
    marked its dirty pages clean. The whole batch is written once more, to a new segment. If that
    fails too, all waiters are told so, events are rejected, and creating a segment is retried every
    second.
5.  Above `max_bytes` (spool-full) or below `min_free` (disk-full), events are rejected until there
    is space. With `drop_oldest`, delivery lets the oldest expire, and events are rejected only 10 %
    above `max_bytes` or below half of `min_free`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from pixelfast.spool.batch cimport CommitBatch
from pixelfast.spool.frames cimport MAX_FRAME_BYTES, max_overhead_bytes
from pixelfast.spool.states cimport Receipt, Rejection, StateMachine, WriterState

import os
from collections import deque
from errno import EDQUOT, ENOSPC

import structlog

from pixelfast.spool.bounds import SlotBounds
from pixelfast.spool.space import SpaceWatch
from pixelfast.spool.states import REJECTIONS
from pixelfast.spool.supply import SegmentSupply

__all__ = ["SpoolWriter"]

cdef enum:
    COMMIT_BYTES = 1048576      # a batch of this size is closed and queued
    KEPT_BATCHES = 4
    SYNC_INTERVAL_S = 1         # ack = written: the maximum time without a sync
    SYNC_BYTES = 1048576        # and size, because the events that arrive meanwhile wait for it
    RETRY_INTERVAL_S = 1        # between two attempts to make a segment


cdef class SyncSchedule:
    """When a commit is synced: each one; or with `ack` written or received after 1 s or 1 MiB."""

    def __cinit__(self, bint is_each_synced, double now_s):
        self.is_each_synced = is_each_synced
        self._last_s = now_s

    cdef bint is_due(self, double now_s) noexcept:
        if self.is_each_synced or self.unsynced_bytes >= SYNC_BYTES:
            return True
        return now_s - self._last_s >= SYNC_INTERVAL_S

    cdef bint submit(self, double now_s, Py_ssize_t size, bint sync) noexcept:
        # Note what is submitted; return whether a sync must be planned for it.
        cdef bint is_first = not sync and self.unsynced_bytes == 0
        self.unsynced_bytes += size
        if sync:
            self._last_s = now_s
            self.unsynced_bytes = 0
        return is_first


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
        acks=None,
        int64_t max_commit_bytes=COMMIT_BYTES,
    ):
        self._loop = loop
        self._files = files
        self._committer = committer
        self._on_stored = on_stored
        self._log = structlog.get_logger("spool").bind(slot=files.slot)
        self.names = [name.encode("ascii") for name in names]
        self._syncs = SyncSchedule(ack == "synced", loop.time())
        self.acks_at_once = ack == "received"
        self._bounds = SlotBounds(max_bytes, min_free, on_full, files.slot)
        self._free_bytes = min_free  # until it is measured
        self._max_waiting_bytes = max_waiting_bytes
        self._max_commit_bytes = min(COMMIT_BYTES, files.segment_bytes // 4, max_commit_bytes)
        self._max_wait_s = max_wait_s
        self._compress = compress
        self._acks = acks
        self._states = StateMachine()
        self._open = CommitBatch()
        self._queue = deque()
        self._spares = []
        self._number_before = files.next_number - 1
        loop.add_reader(committer.done_fd, self._on_commit_done)
        self._space = SpaceWatch(loop, files, self._on_measured)
        self._supply = SegmentSupply(loop, files, self._on_segment_made)
        self._supply.make()
        self._check()

    @property
    def state(self):
        return self._states.name

    @property
    def rejection(self):
        return self._states.reason

    @property
    def is_ready(self):
        return self._segment is not None and not self._states.rejection

    # --- accepting events --------------------------------------------------------------------

    def add(self, uint32_t source, bytes event not None, received_ms=0, waiter=None):
        # A batch is closed at this size, so a frame has at most one event more.
        cdef Py_ssize_t limit = MAX_FRAME_BYTES - COMMIT_BYTES - max_overhead_bytes()
        cdef Py_ssize_t length = PyBytes_GET_SIZE(event)
        cdef Receipt receipt
        if source >= <uint32_t>len(self.names):
            raise ValueError(f"source {source} of {len(self.names)}")
        if length > limit:
            raise ValueError(f"event is {length:,} bytes, limit {limit:,}")
        memcpy(self.reserve(length), PyBytes_AS_STRING(event), length)
        self.take(source, length, received_ms, waiter, &receipt)
        return receipt.ticket, REJECTIONS[receipt.rejection] if receipt.rejection else ""

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        # Return memory for an event of at most `size` bytes. It counts once `take` is called.
        if self._open.gathered_bytes() >= self._max_commit_bytes:
            self._queue.append(self._close_open_batch())
        return self._open.reserve(size)

    cdef int take(
        self,
        uint32_t source,
        Py_ssize_t length,
        int64_t received_ms,
        object waiter,
        Receipt* receipt,
    ) except -1:
        # Accept or reject the event written at `reserve`; `receipt` has the result.
        cdef CommitBatch batch = self._open
        receipt.ticket = 0
        receipt.rejection = self._states.rejection
        if receipt.rejection:
            return 0
        if self.waiting_bytes + length >= self._max_waiting_bytes:
            receipt.rejection = Rejection.OVERLOADED
            return 0
        self._ticket += 1
        if batch.count == 0:
            batch.since_s = self._loop.time()
            batch.first_ticket = self._ticket
        batch.take(source, length, received_ms)
        if not self.acks_at_once:
            batch.waiters.append(waiter)
        self.waiting_bytes += length + 1
        if self._commit == CommitState.IDLE:
            # Not at once, so that all requests that this turn of the loop reads are in one commit.
            self._commit = CommitState.SCHEDULED
            self._loop.call_soon(self._start_commit)
        receipt.ticket = self._ticket
        return 0

    cdef CommitBatch _close_open_batch(self):
        # Return the batch that accepted events until now; another one accepts the next.
        cdef CommitBatch batch = self._open
        self._open = <CommitBatch>self._spares.pop() if self._spares else CommitBatch()
        return batch

    # --- committing --------------------------------------------------------------------------

    def _start_commit(self):
        if self._commit == CommitState.UNDER_WAY or self._states.state == WriterState.CLOSED:
            return
        self._commit = CommitState.IDLE
        if self._segment is None:
            return  # `_on_segment_made` continues
        cdef CommitBatch batch = self._queue[0] if self._queue else self._open
        cdef double now_s = self._loop.time()
        if batch.count == 0:
            if self._syncs.unsynced_bytes and self._syncs.is_due(now_s):
                self._submit(None, True)
            elif self._states.state == WriterState.CLOSING:
                self._end()
            return
        if self._acks is not None and self._acks.delays_commit():
            self._commit = CommitState.DELAYED
            return  # `resume` continues
        if self._segment.offset + batch.sealed_bytes(self.names) > self._files.segment_bytes:
            self._leave_segment(True)
            if self._segment is None:
                return  # `_on_segment_made` continues
        if batch is self._open:
            self._close_open_batch()
        else:
            self._queue.popleft()
        # Numbers count up with tickets: a batch that is committed again keeps its own, and those of
        # a batch that was given up are not used again.
        first_number = self._number_before + batch.first_ticket
        segment = self._segment
        place = segment.id, segment.offset, first_number
        batch.seal(self.names, *place, self._compress, segment_bytes=self._files.segment_bytes)
        self._submit(batch, self._syncs.is_due(now_s))

    cdef int _submit(self, CommitBatch batch, bint sync) except -1:
        self._commit = CommitState.UNDER_WAY
        self._in_flight = batch
        cdef Py_ssize_t size = batch.image_bytes if batch is not None else 0
        if self._syncs.submit(self._loop.time(), size, sync):
            self._loop.call_later(SYNC_INTERVAL_S, self._sync_alone)
        self._committer.submit(self._segment.fd, batch, self._segment.offset, sync)
        return 0

    def _sync_alone(self):
        # With ack = written, no later commit has synced this one.
        if self._states.state == WriterState.CLOSED or self._segment is None:
            return
        if self._syncs.unsynced_bytes and self._commit != CommitState.UNDER_WAY:
            self._submit(None, True)  # after a commit under way, `_start_commit` sees to it

    def _on_commit_done(self):
        cdef CommitBatch batch = self._in_flight
        cdef list waiters
        cdef int64_t first_ticket
        error = self._committer.finish()
        if error is None:
            return
        self._commit = CommitState.IDLE
        self._in_flight = None
        if error:
            self._on_failure(batch, error)
        elif batch is None:
            if self._acks is not None:
                self._acks.on_synced(self._segment.id.number, self._segment.offset)
            self._start_commit()
        elif self._acks is not None:
            self._hand_over(batch)
        else:
            self._count(batch)
            waiters, first_ticket = batch.waiters, batch.first_ticket
            self._release(batch)
            self._start_commit()  # before the responses: the disk works while they go out
            if waiters:
                self._on_stored(waiters, first_ticket, True)

    cdef int _hand_over(self, CommitBatch batch) except -1:
        # The brokers' reports or the next sync release the waiters.
        segment, start = self._segment.id, self._segment.offset
        is_synced = self._syncs.unsynced_bytes == 0
        image = batch.sealed()
        waiters, first_ticket, since_s = batch.waiters, batch.first_ticket, batch.since_s
        self._count(batch)
        self._release(batch)
        self._acks.on_written(segment, start, image, waiters, first_ticket, since_s)
        if is_synced:
            self._acks.on_synced(segment.number, start + len(image))
        self._start_commit()
        return 0

    cdef int _count(self, CommitBatch batch) except -1:
        self._segment.offset += batch.image_bytes
        self.commits += 1
        self.stored_events += batch.count
        self.stored_bytes += batch.image_bytes
        self.used_bytes += batch.image_bytes
        return 0

    def sync_each(self, bint is_each_synced):
        self._syncs.is_each_synced = is_each_synced
        if is_each_synced and self._segment is not None:
            self.resume()

    def resume(self):
        if self._commit == CommitState.IDLE or self._commit == CommitState.DELAYED:
            self._start_commit()

    def set_replicated(self, bint is_replicated):
        self._is_unreplicated = not is_replicated
        if self._states.state == WriterState.OPEN:
            self._enter(WriterState.OPEN)

    cdef int _release(self, CommitBatch batch) except -1:
        self.waiting_bytes -= batch.event_bytes
        batch.clear()
        if len(self._spares) < KEPT_BATCHES:
            self._spares.append(batch)
        return 0

    cdef int _abandon(self, CommitBatch batch) except -1:
        waiters, first_ticket = batch.waiters, batch.first_ticket
        if self.acks_at_once:
            self.lost_events += batch.count
        self._release(batch)
        if waiters:
            self._on_stored(waiters, first_ticket, False)
        return 0

    # --- segments ----------------------------------------------------------------------------

    cdef int _leave_segment(self, bint is_sound) except -1:
        # A sound one is synced there, because events of ack = written may not be synced yet.
        left, self._segment = self._segment, self._supply.take()
        is_synced = self._supply.leave(left, is_sound=is_sound)
        if self._acks is not None:
            self._acks.on_left(left.id.number, is_synced)
        self._syncs.unsynced_bytes = 0
        return 0

    def _on_segment_made(self, int error):
        if self._states.state == WriterState.CLOSED:
            return  # `close` looks for it
        if self._states.state == WriterState.FAILING:
            if self._is_awaited and not error:
                self._come_back()
            self._is_awaited = False
        elif self._segment is not None:
            if error:
                self._loop.call_later(RETRY_INTERVAL_S, self._supply.make)
        elif error:
            self._give_up(error)
        else:
            self._go_on()

    cdef int _go_on(self) except -1:
        # Continue in the segment that was created in advance.
        self._segment = self._supply.take()
        self._supply.make()
        self._start_commit()
        return 0

    # --- when the disk fails -----------------------------------------------------------------

    cdef int _on_failure(self, CommitBatch batch, int error) except -1:
        self.failed_commits += 1
        self._log.error("commit_failed", segment=self._segment.path.name, error=os.strerror(error))
        self._leave_segment(False)
        if batch is None:
            self._start_commit()
        elif batch.has_failed:
            self._abandon(batch)
            self._give_up(error)
        else:
            batch.has_failed = True
            self._queue.appendleft(batch)
            self._start_commit()
        return 0

    cdef int _give_up(self, int error) except -1:
        # No event can be stored now: all waiters are told so. A segment that was created in advance
        # stays, because nothing was written to it.
        cdef bint is_closing = self._states.state == WriterState.CLOSING
        if not is_closing:
            self._enter(WriterState.FAILING, error)
        while self._queue:
            self._abandon(self._queue.popleft())
        if self._open.count:
            self._abandon(self._close_open_batch())
        if is_closing:
            self._end()
        else:
            self._recovery += 1
            self._space.start_over()
            self._loop.call_later(RETRY_INTERVAL_S, self._recover, self._recovery)
        return 0

    def _recover(self, int64_t recovery, bint is_early=False):
        # `is_early`: in addition to the attempt of every RETRY_INTERVAL_S.
        if self._states.state != WriterState.FAILING or recovery != self._recovery:
            return  # it was closed, or has recovered meanwhile
        if self._segment is not None or self._supply.has_segment:
            self._come_back()
            return
        self._is_awaited = is_early
        self._supply.make()
        if not is_early:
            self._loop.call_later(RETRY_INTERVAL_S, self._recover, recovery)

    cdef int _come_back(self) except -1:
        # There is a segment, or one was made ahead.
        self._log.info("disk_recovered")
        self._enter(WriterState.FULL if self._is_full() else WriterState.OPEN)
        if self._segment is None:
            self._go_on()
        return 0

    # --- states ------------------------------------------------------------------------------

    cdef int _enter(self, WriterState state, int error=0) except -1:
        # `error` is the errno that leads to FAILING.
        cdef bint is_space_lacking = error == ENOSPC or error == EDQUOT
        if state == WriterState.FULL:
            is_space_lacking = self._bounds.is_disk_full
        self._states.enter(state, is_space_lacking, self._is_unreplicated)
        return 0

    cdef int _follow(self, bint is_late) except -1:
        # Become full, late or open, as measured; a writer that fails or closes does not change.
        cdef WriterState state = self._states.state
        cdef WriterState due = WriterState.LATE if is_late else WriterState.OPEN
        if self._is_full():  # called in every state, because it logs changes
            due = WriterState.FULL
        if state in (WriterState.OPEN, WriterState.LATE, WriterState.FULL):
            self._enter(due)
        return 0

    cdef bint _is_full(self) except -1:
        return self._bounds.is_full(self.used_bytes + self.waiting_bytes, self._free_bytes)

    def _check(self):
        if self._states.state == WriterState.CLOSED:
            return
        self._follow(self._give_up_overdue(self._loop.time() - self._max_wait_s))
        is_lacking = self._states.rejection in (Rejection.SPOOL_FULL, Rejection.DISK_FULL)
        pause_s = self._space.look(self._segment, is_lacking=is_lacking)
        self._loop.call_later(pause_s, self._check)

    cdef bint _give_up_overdue(self, double latest_s) except -1:
        # Report events that arrived before `latest_s` as not stored; return whether there were any.
        cdef CommitBatch batch = self._in_flight
        cdef bint is_late = batch is not None and batch.since_s < latest_s
        if is_late and batch.waiters:
            # The disk may still store it, but its waiters have waited long enough.
            waiters, batch.waiters = batch.waiters, []
            self._on_stored(waiters, batch.first_ticket, False)
        if self.acks_at_once:
            return is_late
        while self._queue and self._queue[0].since_s < latest_s:
            is_late = True
            self._abandon(self._queue.popleft())
        if self._open.count and self._open.since_s < latest_s:
            is_late = True
            self._abandon(self._close_open_batch())
        return is_late

    def _on_measured(self, int64_t used_bytes, int64_t free_bytes):
        # Free space may end FULL at once; only `_check` ends LATE.
        cdef CommitBatch batch = self._in_flight
        cdef bint is_late = self._states.state == WriterState.LATE
        self.used_bytes, self._free_bytes = used_bytes, free_bytes
        cdef bint is_disk_full = self._states.rejection == Rejection.DISK_FULL
        if self._states.state == WriterState.FAILING and is_disk_full:
            if self._space.has_grown(used_bytes, free_bytes):
                self._recover(self._recovery, True)
        if self._states.state == WriterState.FULL and batch is not None:
            is_late = batch.since_s < self._loop.time() - self._max_wait_s
        self._follow(is_late)

    async def close(self):
        if self._states.state == WriterState.CLOSING or self._states.state == WriterState.CLOSED:
            return
        if self._states.state == WriterState.FAILING:
            self._enter(WriterState.CLOSED)
        else:
            self._enter(WriterState.CLOSING)
            self._drained = self._loop.create_future()
            self._start_commit()
            await self._drained
        await self._supply.close(self._segment)
        self._loop.remove_reader(self._committer.done_fd)
        self._committer.close()
        self._files.close()

    cdef int _end(self) except -1:
        # It is closing, and nothing waits any more.
        self._enter(WriterState.CLOSED)
        self._drained.set_result(None)
        return 0
