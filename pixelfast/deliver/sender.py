"""What the engine asks of every kind of destination."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from pixelfast.config import Redactor
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.masking import masked
from pixelfast.deliver.outcomes import Outcome
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["Sender"]


class Sender(ABC):
    """Sends batches to one destination.

    `in_thread` runs what blocks; the runner puts a thread of the sender's own there.
    `concurrency` is how many calls of `send` may be under way at once, each with another batch.
    `may_send_ahead`: whether a copy of an event may be sent before its turn, as a probe.
    """

    limits: BatchLimits
    concurrency: int = 1  # 1: in the order of events
    may_send_ahead: bool = True
    retry_first_s: float = 0.5
    retry_most_s: float = 60.0
    in_thread: Callable[..., Awaitable[Any]] = staticmethod(asyncio.to_thread)  # type: ignore[arg-type] # ParamSpec

    redactor: Redactor = Redactor()  # knows no secrets; the engine puts its own there

    @functools.cached_property
    def attempts(self) -> Attempts:
        """What was sent; the engine puts its own here, which outlives this sender."""
        return Attempts(DeliveryClock())

    async def deliver(self, batch: Batch) -> Outcome:
        """Send a batch once; the secrets of the settings are masked in what is returned."""
        began_s = self.attempts.began_s()
        outcome = await self.send(batch)
        self.attempts.count(outcome, batch.events, began_s)
        return await masked(outcome, self.redactor)

    @abstractmethod
    async def open(self, memory: dict[str, object]) -> None:
        """Get ready, anew if called again.

        `memory` is what the last accepted batch asked to remember.
        """

    @abstractmethod
    async def send(self, batch: Batch) -> Outcome:
        """Send a batch once. Faults of the destination are an outcome, not an exception."""

    def figures(self) -> dict[str, float]:
        """What it tells of itself, for the metrics; does not block."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Let go of files and connections."""
