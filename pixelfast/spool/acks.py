"""What a spool writer needs of an object that acknowledges its commits."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from pixelfast.spool.format import SegmentId

__all__ = ["CommitAcks"]


class CommitAcks(Protocol):
    """Learns of each commit, and calls `on_stored` of its waiters."""

    def delays_commit(self) -> bool:
        """Return whether the next commit must wait for `SpoolWriter.resume`."""

    def on_written(
        self,
        segment: SegmentId,
        offset: int,
        image: bytes,
        waiters: list[Any],
        first_ticket: int,
        since_s: float,
    ) -> None:
        """Note a commit that was written at `offset`; its first event came at `since_s`."""

    def on_synced(self, segment: int, offset: int) -> None:
        """Note that a segment is synced up to `offset`."""

    def on_left(self, segment: int, is_synced: asyncio.Future[bool]) -> None:
        """Note that a segment is complete; the future says whether it could be synced."""
