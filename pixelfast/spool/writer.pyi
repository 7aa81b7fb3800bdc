import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pixelfast.spool.committer import Committer
from pixelfast.spool.segments import SlotFiles

__all__ = ["REJECTIONS", "STATES", "TRANSITIONS", "SpoolWriter", "StateMachine"]

REJECTIONS: Mapping[int, str]
"""Why an event is not taken, as sent to clients, by the number in a receipt."""

STATES: tuple[str, ...]
"""The states of a writer, the first one first."""

TRANSITIONS: Mapping[str, tuple[str, ...]]
"""The states that each state may lead to."""

class StateMachine:
    """The state of a writer; the only place where it changes.

    >>> machine = StateMachine()
    >>> machine.change_to("late")
    >>> machine.name
    'late'
    >>> machine.change_to("closed")
    Traceback (most recent call last):
    AssertionError: a spool writer can't go from late to closed
    """

    @property
    def name(self) -> str:
        """One of `STATES`."""

    def change_to(self, name: str) -> None:
        """Change to another state.

        Raises:
            AssertionError: `TRANSITIONS` does not allow it.
        """

class SpoolWriter:
    """Writes one slot: events in, group commits, acknowledgements out.

    Args:
        loop: the event loop that everything but the committer runs on.
        files: the slot, owned by this process.
        committer: writes and syncs.
        names: the names of the sources, ASCII, 1 to 63 bytes; an event names its source by its
            index.
        on_stored: called once a commit with (waiters, first ticket, stored or not). The waiters
            are those of consecutive tickets. Must not raise.
        ack: "synced", "written" or "received": when an event counts as stored.
        max_bytes: reject events while the slot's segments take this much.
        min_free: reject events while the disk has less room than this, in bytes.
        on_full: "reject", or "drop_oldest" if delivery lets the oldest events expire: then
            the two bounds are 10 % and half as strict.
        max_waiting_bytes: reject events that would make more wait for the disk.
        max_wait_s: after this long an event that waits counts as not stored.
        compress: makes a frame's body smaller, on the loop's thread; see `compressor`.

    Attributes:
        acks_at_once: ack = received; `on_stored` is never called.
        used_bytes: what the slot's segments take, as last measured or written.
        waiting_bytes: events that wait for the disk, each with its line feed.
        lost_events: with `acks_at_once`, events that could not be stored.
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
    ) -> None: ...
    @property
    def state(self) -> str:
        """One of `STATES`."""

    @property
    def rejection(self) -> str:
        """Why every event is rejected now, one of `REJECTIONS`; empty if they are taken."""

    @property
    def is_ready(self) -> bool:
        """Whether the next event would be taken and has a segment to go to."""

    def add(
        self, source: int, event: bytes, received_ms: int = 0, waiter: Any = None
    ) -> tuple[int, str]:
        """Take one event's JSON, or reject it. Does not block.

        Returns its ticket, 1 and upwards, and an empty string; or 0 and one of `REJECTIONS`.
        """

    async def close(self) -> None:
        """Take no more events, store all that wait, leave the slot."""
