"""Replicates the log of one slot: every frame, in the order of the log, to one partition.

While the replicator is at the end of the log, it produces the frames of each commit from memory.
Otherwise, it is behind: it reads the segments from its position on, until it has reached the end of
the log again. It is the only place that decides which frame is produced next.

    LIVE     BEHIND   too many bytes are without a report, or a segment's partition must be recorded
    LIVE     BEHIND   the producer failed; the next one begins at the first frame without a report
    BEHIND   LIVE     everything up to the end of the last commit is produced

A frame counts as replicated when the brokers have reported it and all frames before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from pixelfast.cluster.cursor import (
    ReplicationCursor,
    choose_partition,
    lock_path,
    read_cursor,
    write_cursor,
)
from pixelfast.cluster.frames import LogFrame, frames_of_image, parts_of, read_frames
from pixelfast.cluster.producer import FrameProducer, TopicUnusable, Transport
from pixelfast.config import Cluster
from pixelfast.kafka.errors import Meaning, error_message, meaning_of
from pixelfast.spool import DataDir, Position, SlotReader, remove_read_segments
from pixelfast.spool.datadir import try_lock_file
from pixelfast.spool.format import SegmentId
from pixelfast.spool.recovery import LOOKS_UNTIL_SEARCH

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["Connect", "Replicator"]

_MAX_IN_FLIGHT_BYTES = 32 * 2**20
_MIN_POLL_S = 0.001
_MAX_POLL_S = 0.02
_POLL_SHARE = 0.05  # the pause is at most this share of the time since the last report
_IDLE_POLL_S = 0.25  # for errors, log lines and statistics
_CURSOR_S = 1.0
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0
_END_LOOK_S = 0.05  # between two looks at the end of the log
_FIRST_LOOK_S = 0.005  # before the first commit
_LOCK_LOOK_S = 0.1
_COMMIT_MARGIN_BYTES = 2**16
_MIN_MESSAGE_BYTES = 2**17

_Result = TypeVar("_Result")
# Returns a producer; the arguments are the maximum size of a message, `on_fatal` and `on_error`.
Connect = Callable[[int, Callable[[str], None], Callable[[str], None]], Transport]


class _Sent:
    """A frame that was produced, until all frames up to it are reported."""

    __slots__ = ("bytes", "end", "missing", "received_ms")

    def __init__(self, frame: LogFrame) -> None:
        self.end = frame.end
        self.bytes = frame.length
        self.received_ms = frame.received_ms
        self.missing = 0  # reports that have not arrived


class Replicator:
    """Replicates one slot.

    Attributes:
        position: everything before it is stored by the brokers.
        replicated_bytes, replicated_frames: how much was replicated since the start.
        failures: how often a producer was given up.
        last_error: why frames are not replicated; "" if they are.
    """

    def __init__(
        self,
        data: DataDir,
        slot: int,
        settings: Cluster,
        *,
        on_progress: Callable[[], object] = lambda: None,
        connect: Connect | None = None,
        recycled_bytes: int = 0,
        max_in_flight_bytes: int = _MAX_IN_FLIGHT_BYTES,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the replication of a slot.

        Args:
            data: the data directory.
            slot: the number of the slot.
            settings: the settings of `[cluster]`.
            on_progress: called after `position` has changed.
            connect: creates a producer.
            recycled_bytes: see `remove_read_segments`.
            max_in_flight_bytes: maximum size of the frames without a report.
            wall_s: the time since 1970.
        """
        self.slot = slot
        self.on_progress = on_progress
        self.replicated_bytes = self.replicated_frames = self.failures = 0
        self.last_error = ""
        self._data = data
        self._settings = settings
        self._connect = connect or partial(FrameProducer, settings)
        self._recycled_bytes = recycled_bytes
        self._max_in_flight_bytes = max_in_flight_bytes
        self._wall_s = wall_s
        self._log = structlog.get_logger("cluster").bind(slot=slot)
        self._loop = asyncio.get_running_loop()
        self._max_message_bytes = settings.max_message_bytes
        self._cursor = ReplicationCursor()
        self._saving = asyncio.Lock()
        self.position = self._cursor.position
        # the next frame to produce, and the end of the last commit
        self._next = self.position
        self._log_end: Position | None = None
        self._is_live = False
        self._behind_since_s = wall_s()
        # frames without a report
        self._sent: deque[_Sent] = deque()
        self._in_flight_bytes = 0
        self._producer: Transport | None = None
        self._generation = 0
        self._partitions = 0
        self._broken = ""
        self._wake = asyncio.Event()
        self._polling: asyncio.TimerHandle | None = None
        self._reported_s = 0.0
        self._logged_failure = ""
        self._lock_fd = -1
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def max_commit_bytes(self) -> int:
        """The size at which a commit is closed, so that its frame fits into a message."""
        return self._settings.max_message_bytes - _COMMIT_MARGIN_BYTES

    @property
    def max_frame_bytes(self) -> int:
        """The size of the largest frame that is sent whole."""
        return self._max_message_bytes - _COMMIT_MARGIN_BYTES // 2

    @property
    def is_connected(self) -> bool:
        """Whether there is a producer that has found the topic."""
        return self._producer is not None and self._partitions > 0

    @property
    def is_complete(self) -> bool:
        """Whether everything that was committed is replicated."""
        return self._is_live and not self._sent

    @property
    def in_flight_bytes(self) -> int:
        """The size of the frames without a report."""
        return self._in_flight_bytes

    def backlog_s(self) -> float:
        """Return the age of the oldest event that is not replicated; 0 if there is none."""
        now_s = self._wall_s()
        if self._sent:
            return max(0.0, now_s - self._sent[0].received_ms / 1000)
        return 0.0 if self._is_live else max(0.0, now_s - self._behind_since_s)

    def start(self) -> None:
        """Read the cursor, and begin to replicate. Blocks for the disk."""
        self._cursor = read_cursor(self._data, self.slot)
        self.position = self._next = self._cursor.position
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._keep_cursor())]

    def note_commit(self, segment: SegmentId, offset: int, image: bytes) -> None:
        """Replicate a commit that was written at an offset of a segment.

        Commits must be noted in the order of the log, and only after they were written.
        """
        self._log_end = Position(segment.number, offset + len(image))
        if not self._is_live:
            self._wake.set()
            return
        partition = self._partition_of(segment.number)
        if partition is None or self._in_flight_bytes >= self._max_in_flight_bytes:
            self._fall_behind()
            return
        for frame in frames_of_image(segment, offset, image):
            if (frame.segment, frame.offset) < self._next[:2]:
                continue  # it was read from the segment before its commit was noted
            if not self._produce(frame, partition):
                return

    async def close(self, timeout_s: float) -> None:
        """Wait until everything is replicated, at most `timeout_s`, and stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.is_complete:  # noqa: ASYNC110 - keeps an event off the hot path
                    await asyncio.sleep(_MAX_POLL_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._end_producer()
        if self._lock_fd >= 0:
            with contextlib.suppress(OSError):
                await self._save()
            os.close(self._lock_fd)
            self._lock_fd = -1

    # --- producing ---------------------------------------------------------------------------

    def _produce(self, frame: LogFrame, partition: int) -> bool:
        """Produce a frame; return False if that failed, so that the producer is given up."""
        from confluent_kafka import KafkaException

        assert self._producer is not None
        sent = _Sent(frame)
        report = partial(self._on_report, self._generation, sent)
        self._sent.append(sent)
        self._in_flight_bytes += sent.bytes
        self._next = sent.end
        parts = parts_of(frame, self._data.node, self.slot, self.max_frame_bytes)
        try:
            for place, value in parts:
                sent.missing += 1
                self._producer.produce(place, value, partition, sent.received_ms, report)
        except (BufferError, KafkaException) as error:
            self._break(str(error))
            return False
        if len(self._sent) == 1:
            self._reported_s = self._loop.time()
            self._poll_after(_MIN_POLL_S)
        return True

    def _on_report(
        self, generation: int, sent: _Sent, error: KafkaError | None, _message: object
    ) -> None:
        if generation != self._generation:
            return
        if error is not None:
            if meaning_of(error) is Meaning.TOO_LARGE:
                self._max_message_bytes = max(_MIN_MESSAGE_BYTES, self._max_message_bytes // 2)
            self._break(error_message(error))
            return
        sent.missing -= 1
        while self._sent and not self._sent[0].missing:
            done = self._sent.popleft()
            self.position = done.end
            self._in_flight_bytes -= done.bytes
            self.replicated_frames += 1
            self.replicated_bytes += done.bytes

    def _poll_after(self, pause_s: float) -> None:
        if self._polling is not None:
            self._polling.cancel()
        self._polling = self._loop.call_later(pause_s, self._poll)

    def _poll(self) -> None:
        self._polling = None
        if self._producer is None:
            return
        before = self.position
        if self._producer.poll():
            self._reported_s = self._loop.time()
        if self.position != before:
            self.last_error = ""
            if not self._is_live:
                self._wake.set()
            self.on_progress()
        if self._polling is not None:
            return  # `on_progress` led to a new frame
        pause_s = _IDLE_POLL_S
        if self._sent:
            pause_s = _POLL_SHARE * (self._loop.time() - self._reported_s)
            pause_s = min(_MAX_POLL_S, max(_MIN_POLL_S, pause_s))
        self._poll_after(pause_s)

    def _break(self, reason: str) -> None:
        """Give up the producer; the next one begins at the first frame without a report."""
        if not self._broken:
            self._broken = self.last_error = reason or "unknown"
            self._fall_behind()

    def _note_error(self, reason: str) -> None:
        self.last_error = reason

    def _fall_behind(self) -> None:
        if self._is_live:
            self._is_live = False
            self._behind_since_s = self._wall_s()
        self._wake.set()

    def _end_producer(self) -> None:
        self._generation += 1  # reports of this producer are ignored from now on
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        if self._producer is not None:
            self._producer.close()
            self._producer = None
        self._partitions = 0
        self._sent.clear()
        self._in_flight_bytes = 0
        self._next = self.position

    # --- connecting and reading --------------------------------------------------------------

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        await self._take_lock()
        while True:
            before = self.position
            self._broken = ""
            try:
                await self._connected()
                await self._forward()
            except Exception as error:  # noqa: BLE001 - must not end replication
                if not isinstance(error, _expected_errors()):
                    self._log.exception("replication_failed")
                self.last_error = str(error)
            self.failures += 1
            self._fall_behind()
            self._end_producer()
            if self.last_error != self._logged_failure:
                self._logged_failure = self.last_error
                self._log.error("replication_interrupted", error=self.last_error)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S) if before == self.position else _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)

    async def _take_lock(self) -> None:
        """Wait until no other process replicates the slot."""
        path = lock_path(self._data, self.slot)
        while (lock := try_lock_file(path)) is None:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(_LOCK_LOOK_S)
        self._lock_fd = lock
        self._cursor = read_cursor(self._data, self.slot)
        self.position = self._next = self._cursor.position

    async def _connected(self) -> None:
        producer = self._connect(self._max_message_bytes, self._break, self._note_error)
        self._producer = producer
        self._poll_after(_MIN_POLL_S)
        self._partitions = await asyncio.to_thread(producer.look_up_partitions)

    async def _forward(self) -> None:
        """Produce frames from the segments whenever it is behind, until the producer fails."""
        reader: SlotReader | None = None
        looks = 0  # consecutive ones that found no frame
        try:
            while not self._broken:
                self._wake.clear()
                if self._is_live or self._in_flight_bytes >= self._max_in_flight_bytes:
                    if self._is_live and reader is not None:
                        reader.close()
                        reader = None
                    await self._wake.wait()
                    continue
                if reader is None:
                    looks = 0
                    reader = SlotReader(self._data, self.slot, self._next)
                frames = await _in_thread(self._read, reader)
                looks = 0 if frames else looks + 1
                for frame in frames:
                    if self._partition_of(frame.segment) is None:
                        await self._save(frame.segment)
                    partition = self._partition_of(frame.segment)
                    assert partition is not None
                    if self._broken or not self._produce(frame, partition):
                        break
                await self._go_live(looks)
        finally:
            if reader is not None:
                reader.close()

    def _read(self, reader: SlotReader) -> list[LogFrame]:
        return read_frames(self._data, self.slot, reader.read())

    async def _go_live(self, looks: int) -> None:
        """Become live if everything up to the end of the last commit was produced.

        Before the first commit, the end of the log is where so many looks found no frame that the
        reader has also searched for frames after damage.
        """
        if self._broken:
            return
        if self._log_end is not None:
            is_at_end = self._next >= self._log_end
        else:
            is_at_end = looks > LOOKS_UNTIL_SEARCH
        if is_at_end:
            self._is_live = True
            if self._logged_failure:
                self._logged_failure = ""
                self._log.info("replication_resumed")
            self.on_progress()
        elif looks:
            with contextlib.suppress(TimeoutError):
                pause_s = _FIRST_LOOK_S if self._log_end is None else _END_LOOK_S
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    # --- the cursor --------------------------------------------------------------------------

    def _partition_of(self, segment: int) -> int | None:
        """Return the partition of a segment, or None if one must be chosen.

        The known partition does not exist if the topic was created again with fewer partitions. No
        earlier frame is in the new topic, so another partition does not change the order.
        """
        partition = self._cursor.partition_of(segment)
        return partition if partition is not None and partition < self._partitions else None

    async def _save(self, segment: int | None = None) -> None:
        """Record the position, and choose the partition of a segment that has none."""
        async with self._saving:
            cursor = self._cursor.moved_to(self.position)
            if segment is not None and self._partition_of(segment) is None:
                partition = choose_partition(self._data.node, self.slot, self._partitions)
                cursor = cursor.with_partition(segment, partition)
            await _in_thread(write_cursor, self._data, self.slot, cursor)
            self._cursor = cursor

    async def _keep_cursor(self) -> None:
        """Record the position every second, and release the segments before it."""
        while True:
            await asyncio.sleep(_CURSOR_S)
            before = self._cursor.position
            if self._lock_fd < 0 or before == self.position:
                continue
            try:
                await self._save()
                if before.segment != self._cursor.position.segment:
                    await _in_thread(self._release)
            except OSError as error:
                self._log.error("replication_cursor_not_written", error=str(error))

    def _release(self) -> None:
        remove_read_segments(
            self._data,
            self.slot,
            [self._cursor.position.segment],
            recycled_bytes=self._recycled_bytes,
        )


async def _in_thread(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function in a thread; do not return before it has, not even if it is cancelled."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise


def _expected_errors() -> tuple[type[Exception], ...]:
    from confluent_kafka import KafkaException

    return KafkaException, TopicUnusable, OSError
