import asyncio
from collections.abc import Callable
from typing import Any

from pixelfast.spool.committer import Committer
from pixelfast.spool.segments import SlotFiles

REFUSALS: dict[int, str]
"""Why `SpoolWriter.add` takes no event, as a short word, by its number."""

class SpoolWriter:
    """Writes one slot: events in, group commits, acknowledgements out.

    Args:
        loop: the event loop that everything but the committer runs on.
        files: the slot, owned by this process.
        committer: writes and syncs.
        names: the names of the sources, ASCII, 1 to 63 bytes; events name theirs by its place.
        on_stored: called once a commit with (waiters, first ticket, stored or not). The waiters
            are those of consecutive tickets. Must not raise.
        ack: "synced", "written" or "received": when an event counts as stored.
        max_bytes: refuse events while the slot's segments take this much.
        min_free: refuse events while the disk has less room than this, in bytes.
        on_full: "reject", or "drop_oldest" where delivery lets the oldest events expire: then
            the two bounds are 10 % and half as strict.
        max_waiting_bytes: refuse events that would make more wait for the disk.
        max_wait_s: after this long an event that waits counts as not stored.
        compress: makes a frame's body smaller, on the loop's thread; see `compressor`.

    Attributes:
        refusal: 0, or the number in `REFUSALS` of why no event is taken now.
        acks_at_once: ack = received; `on_stored` is never called.
    """

    names: list[bytes]
    acks_at_once: bool
    refusal: int
    used_bytes: int
    waiting_bytes: int
    stored_events: int
    stored_bytes: int
    lost_events: int
    commits: int
    failed_commits: int
    commit_seconds: float

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
    ) -> None: ...
    @property
    def is_ready(self) -> bool:
        """Whether the next event would be taken and has a segment to go to."""

    def add(self, source: int, event: bytes, received_ms: int = 0, waiter: Any = None) -> int:
        """Take one event's JSON. Does not block.

        Returns its ticket, 1 and upwards; or the number of a refusal, negated.
        """

    async def close(self) -> None:
        """Take no more events, store all that wait, leave the slot."""
