"""The sender of a destination, and the state that all runners which use it share.

A destination has one runner, or with `[cluster]` one for each partition that the process owns. The
destination sees one client in any case: one sender, one limit of concurrent requests, one pause
after failures, and one probe at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from pixelfast.backoff import Backoff
from pixelfast.deliver.health import Health
from pixelfast.deliver.rejections import Rejections
from pixelfast.deliver.sender import Sender
from pixelfast.deliver.threads import OwnThread
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["Outlet"]

WakeUp = Callable[[], None]


class Outlet:
    """Share a sender among runners, which send in turn if there are more batches than requests.

    Attributes:
        sender: is open while at least one runner uses it.
        health: whether to send, and how much at once.
        rejections: whether rejected events are bad.
        requests: the number of requests under way, of all runners.
        probes: the number of probes under way, of all runners.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
        backoff: Backoff | None = None,
    ) -> None:
        """Share `sender`; `backoff` are the pauses after failures, by default those of `sender`."""
        self.sender = sender
        backoff = backoff or Backoff(sender.retry_first_s, sender.retry_most_s)
        self.health = Health(name, backoff, sender.concurrency, timings, clock)
        self.rejections = Rejections(timings)
        self.requests = 0
        self.probes = 0
        self._name = name
        self._users = 0
        self._is_open = False
        self._lock = asyncio.Lock()  # held while the sender is opened or closed
        self._opened = AsyncExitStack()
        self._waiting: dict[WakeUp, None] = {}  # runners whose turn comes, in this order

    async def open(self, memory: dict[str, object]) -> None:
        """Begin to use the sender; `memory` is what the last accepted batch asked to remember."""
        self._users += 1
        try:
            async with self._lock:
                if not self._is_open:
                    await self._open(memory)
        except BaseException:
            await self.close()
            raise

    async def _open(self, memory: dict[str, object]) -> None:
        async with AsyncExitStack() as stack:
            # The sender has a thread, so that the disk of a runner's state does not delay its next
            # batches.
            thread = OwnThread(f"send-{self._name}")
            stack.push_async_callback(thread.close)
            self.sender.in_thread = thread.run
            stack.push_async_callback(self.sender.close)
            await self.sender.open(memory)
            self._opened = stack.pop_all()
            self._is_open = True

    async def close(self) -> None:
        """End the use; the last runner closes the sender."""
        self._users -= 1  # at once, because waiting for the lock may be cancelled
        async with self._lock:
            if self._is_open and not self._users:
                self._is_open = False
                await self._opened.aclose()

    # --- requests ----------------------------------------------------------------------------

    def allows(self, now_s: float) -> bool:
        """Whether the health of the destination allows another request."""
        return self.health.breaker.allows(now_s, self.requests + self.probes)

    def may_begin(self, wake_up: WakeUp) -> bool:
        """Whether a runner may begin a request now; if not, `wake_up` is called at its turn."""
        is_full = self.requests >= self.health.concurrency.limit
        if is_full or next(iter(self._waiting), wake_up) != wake_up:
            self._waiting.setdefault(wake_up)
            return False
        self._waiting.pop(wake_up, None)
        return True

    def begin(self) -> None:
        """Count a request that begins."""
        self.requests += 1
        self._wake_next()

    def end(self) -> None:
        """Count a request that has ended."""
        self.requests -= 1
        self._wake_next()

    def leave(self, wake_up: WakeUp) -> None:
        """Give up the turn of a runner, which has nothing to send."""
        if wake_up in self._waiting:
            del self._waiting[wake_up]
            self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting and self.requests < self.health.concurrency.limit:
            next(iter(self._waiting))()
