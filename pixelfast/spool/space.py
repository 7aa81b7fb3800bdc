"""Measures the disk space at intervals, and more often while there is too little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pixelfast.spool.segments import SegmentFile, SlotFiles

__all__ = ["SpaceWatch"]

_CHECK_S = 0.25
_MEASURE_S = 1.0
_LACKING_S = 0.05


class SpaceWatch:
    """Measures in another thread how much a slot uses, and how much of its disk is free.

    Args:
        loop: the event loop of the writer.
        files: the writer's slot.
        on_measured: called with the bytes that the slot uses, and those that are free.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: SlotFiles,
        on_measured: Callable[[int, int], object],
    ) -> None:
        self._loop = loop
        self._files = files
        self._on_measured = on_measured
        self._measured_s = 0.0
        self._is_measuring = False
        self._space_bytes: int | None = None  # at the last measurement

    def look(self, current: SegmentFile | None, *, is_lacking: bool) -> float:
        """Measure if that is due; return the seconds until the next look.

        `current` is the segment that is written. `is_lacking` says whether events are rejected for
        lack of disk space; they are then accepted again within 0.1 s after there is space.
        """
        due_s = self._measured_s + (_LACKING_S if is_lacking else _MEASURE_S)
        if self._loop.time() >= due_s and not self._is_measuring:
            self._measured_s = self._loop.time()
            self._is_measuring = True
            measuring = self._loop.run_in_executor(None, self._files.measure, current)
            measuring.add_done_callback(self._on_done)
        return _LACKING_S if is_lacking else _CHECK_S

    def start_over(self) -> None:
        """Forget the last measurement, because the disk is full."""
        self._space_bytes = None

    def has_grown(self, used_bytes: int, free_bytes: int) -> bool:
        """Return whether there is more space than at the last call, and enough for a segment."""
        space_bytes = free_bytes - used_bytes
        before, self._space_bytes = self._space_bytes, space_bytes
        if before is None or free_bytes < self._files.segment_bytes:
            return False
        return space_bytes > before

    def _on_done(self, future: asyncio.Future[tuple[int, int]]) -> None:
        self._is_measuring = False
        if not future.cancelled() and future.exception() is None:
            self._on_measured(*future.result())
