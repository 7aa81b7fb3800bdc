"""The segments of one writer: one is created in advance, and full ones are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import EIO

import structlog

from pixelfast.spool.segments import SegmentFile, SlotFiles

__all__ = ["SegmentSupply"]

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 1.0
_FORGET_AFTER_S = 10.0


class SegmentSupply:
    """Creates and closes segments in another thread, because both wait for the disk.

    After repeated failures of the disk, the next segment is created after a pause, which doubles up
    to one second. Without it, a disk with frequent errors would be filled with segments.

    Args:
        loop: the event loop of the writer.
        files: the writer's slot.
        on_made: called with 0 once the segment made ahead exists, or with the errno if it could not
            be created. Nothing is retried before `make` is called.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: SlotFiles,
        on_made: Callable[[int], object],
    ) -> None:
        self._loop = loop
        self._files = files
        self._on_made = on_made
        self._log = structlog.get_logger("spool").bind(slot=files.slot)
        self._ahead: SegmentFile | None = None
        self._making: asyncio.Future[SegmentFile] | None = None
        self._ended: asyncio.Future[None] | None = None  # the creation that `close` waits for
        self._failure = ""  # of the last creation; repeated failures are logged once
        self._is_closed = False
        self._failures = 0  # of segments, with less than _FORGET_AFTER_S between them
        self._failed_s = 0.0

    @property
    def has_segment(self) -> bool:
        """Whether `take` would return a segment."""
        return self._ahead is not None

    def make(self) -> None:
        """Start making a segment ahead, unless it is there or under way."""
        if self._ahead is None and self._making is None and not self._is_closed:
            self._making = self._loop.run_in_executor(None, self._files.create)
            self._making.add_done_callback(self._on_done)

    def take(self) -> SegmentFile | None:
        """Return the segment made ahead, or None if it is not there yet."""
        segment, self._ahead = self._ahead, None
        return segment

    def leave(self, segment: SegmentFile, *, is_sound: bool) -> asyncio.Future[bool]:
        """Close a segment in another thread, and create the next one.

        After repeated failures, the next one is created after a pause. The future says whether all
        of the segment is on the disk. See `SlotFiles.retire` for `is_sound`.
        """
        left = self._loop.run_in_executor(None, self._retire, segment, is_sound)
        if is_sound:
            self.make()
            return left
        now_s = self._loop.time()
        if now_s - self._failed_s > _FORGET_AFTER_S:
            self._failures = 0
        self._failed_s = now_s
        self._failures += 1
        if self._failures == 1:
            self.make()
        else:
            pause_s = min(_FIRST_PAUSE_S * 2 ** (self._failures - 2), _MAX_PAUSE_S)
            self._loop.call_later(pause_s, self.make)
        return left

    async def close(self, current: SegmentFile | None) -> None:
        """Close the current segment and the one made ahead, once it is no longer under way."""
        self._is_closed = True
        if self._making is not None:
            self._ended = self._loop.create_future()
            await self._ended
        for segment in (current, self._ahead):
            if segment is not None:
                self._retire(segment, True)

    def _on_done(self, future: asyncio.Future[SegmentFile]) -> None:
        self._making = None
        if self._ended is not None:
            self._ended.set_result(None)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            if self._failure:
                self._failure = ""
                self._log.info("segment_created")
            self._ahead = future.result()
            self._on_made(0)
        else:
            failure = getattr(error, "strerror", None) or str(error)
            if failure != self._failure:
                self._failure = failure
                self._log.error("segment_create_failed", error=failure)
            self._on_made(getattr(error, "errno", None) or EIO)

    def _retire(self, segment: SegmentFile, is_sound: bool) -> bool:
        try:
            self._files.retire(segment, is_sound=is_sound)
        except OSError as error:
            self._log.error("segment_close_failed", segment=segment.path.name, error=str(error))
            return False
        return is_sound
