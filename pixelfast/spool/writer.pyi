import asyncio
from collections.abc import Callable
from typing import Any

from pixelfast.spool.acks import CommitAcks
from pixelfast.spool.committer import Committer
from pixelfast.spool.segments import SlotFiles

__all__ = ["SpoolWriter"]

class SpoolWriter:
    """Writes one slot: collects events, commits them in groups and acknowledges them.

    Args:
        loop: the event loop on which everything except the committer runs.
        files: the slot, owned by this process.
        committer: writes and syncs.
        names: the names of the sources, ASCII, 1 to 63 bytes; an event names its source by its
            index.
        on_stored: called once per commit with (waiters, first ticket, whether they are stored). The
            waiters are those of consecutive tickets. Must not raise.
        ack: "synced", "written" or "received": when an event counts as stored.
        max_bytes: maximum size of the slot's segments; above it, events are rejected.
        min_free: minimum free disk space in bytes; below it, events are rejected.
        on_full: "reject", or "drop_oldest" if delivery lets the oldest events expire; then events
            are rejected only 10 % above `max_bytes` or below half of `min_free`.
        max_waiting_bytes: maximum size of the events that wait for the disk; more are rejected.
        max_wait_s: time after which a waiting event counts as not stored.
        compress: compresses a frame's body, in the loop's thread; see `compressor`.
        acks: releases the waiters of commits instead of the writer, with `ack` "written".
        max_commit_bytes: maximum size of the events of a commit before the last one.

    Attributes:
        acks_at_once: whether `ack` is "received"; `on_stored` is then never called.
        used_bytes: the size of the slot's segments, as last measured or written.
        waiting_bytes: the size of the events that wait for the disk, with their line feeds.
        lost_events: with `acks_at_once`, the number of events that could not be stored.
    """

    names: list[bytes]
    acks_at_once: bool
    used_bytes: int
    waiting_bytes: int
    stored_events: int
    stored_bytes: int
    lost_events: int
    commits: int
    failed_commits: int

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: SlotFiles,
        committer: Committer,
        names: list[str],
        on_stored: Callable[[list[Any], int, bool], None],
        *,
        ack: str = "synced",
        max_bytes: int = ...,
        min_free: int = 0,
        on_full: str = "reject",
        max_waiting_bytes: int = ...,
        max_wait_s: float = 2.0,
        compress: Callable[[memoryview], bytes] | None = None,
        acks: CommitAcks | None = None,
        max_commit_bytes: int = ...,
    ) -> None: ...
    @property
    def state(self) -> str:
        """One of `states.STATES`."""

    @property
    def rejection(self) -> str:
        """Why all events are rejected now, one of `states.REJECTIONS`; empty if none are."""

    @property
    def is_ready(self) -> bool:
        """Whether the next event would be accepted and there is a segment for it."""

    def add(
        self, source: int, event: bytes, received_ms: int = 0, waiter: Any = None
    ) -> tuple[int, str]:
        """Accept or reject the JSON of one event. Does not block.

        Return its ticket, from 1 on, and an empty string; or 0 and one of `states.REJECTIONS`.
        """

    def sync_each(self, is_each_synced: bool) -> None:
        """Sync each commit from now on, and what was written before; or sync after 1 s or 1 MiB."""

    def resume(self) -> None:
        """Start the next commit, if `CommitAcks.delays_commit` allows it now."""

    def set_replicated(self, is_replicated: bool) -> None:
        """Reject all events as `brokers-unavailable`, or accept them again."""

    async def close(self) -> None:
        """Accept no more events, store those that wait, and release the slot."""
