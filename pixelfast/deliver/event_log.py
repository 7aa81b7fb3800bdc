"""The log that a destination reads: slots of frames, in the spool or elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pixelfast.spool import DataDir, Frame, Position, SlotReader, newest_frames

__all__ = ["EventLog", "FrameReader", "SpoolLog"]


class FrameReader(Protocol):
    """Read the frames of one slot in order.

    Attributes:
        is_at_end: whether the last `read` saw the end of the log.
        buffer_bytes: the memory that the frames of the last `read` use.
    """

    is_at_end: bool
    buffer_bytes: int

    def read(self, max_bytes: int = ..., /) -> list[Frame]:
        """Return the next frames, about `max_bytes` of them.

        The list has at least one frame, whatever its size; it is empty at the end of the log.
        """

    def rewind(self, frame: Frame, /) -> None:
        """Go back to a frame that the last `read` returned; the next `read` returns it again."""

    def close(self) -> None: ...


class EventLog(Protocol):
    """A log whose slots are numbered. Positions of one slot are in the order of its events."""

    def slots(self) -> list[int]:
        """Return the slots that exist."""

    def follow(self, slot: int, start: Position, /) -> FrameReader:
        """Read a slot from `start` on, while it grows. Its reader is used on the event loop."""

    def reread(self, slot: int, start: Position, /) -> FrameReader:
        """Read frames again that were read before. Its reader may block."""

    def newest(self, slot: int, /) -> Iterable[Frame]:
        """Return some of the newest frames of a slot. Blocks."""


class SpoolLog:
    """The spool of a data directory."""

    def __init__(self, data: DataDir) -> None:
        self._data = data

    def slots(self) -> list[int]:
        return self._data.slots()

    def follow(self, slot: int, start: Position) -> SlotReader:
        return SlotReader(self._data, slot, start)

    def reread(self, slot: int, start: Position) -> SlotReader:
        return SlotReader(self._data, slot, start)

    def newest(self, slot: int) -> Iterable[Frame]:
        return newest_frames(self._data, slot)
