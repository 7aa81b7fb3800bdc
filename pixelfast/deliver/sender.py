"""The interface of every kind of destination."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from pixelfast.config import Redactor
from pixelfast.deliver.attempts import Attempts
from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.masking import masked
from pixelfast.deliver.outcomes import Outcome, Retry
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["RemoteSender", "Sender"]

_log = structlog.get_logger("deliver")


class Sender(ABC):
    """Send batches to one destination.

    Attributes:
        limits: the limits of a batch.
        concurrency: how many calls of `send` may be under way at once, each with another batch;
            with 1, batches are sent in the order of their events.
        may_send_ahead: whether a copy of an event may be sent before its turn, as a probe.
        blames_events: whether an event may be the cause of a failure that does not name it; such
            events are found and set apart. If False, failures are always retried.
        retry_first_s, retry_most_s: the first and the longest pause after failures.
        in_thread: runs a blocking call; the runner replaces it by the sender's own thread.
        redactor: masks the secrets of the settings; the engine replaces it.
    """

    limits: BatchLimits
    concurrency: int = 1
    may_send_ahead: bool = True
    blames_events: bool = True
    retry_first_s: float = 0.5
    retry_most_s: float = 60.0
    in_thread: Callable[..., Awaitable[Any]] = staticmethod(asyncio.to_thread)  # type: ignore[arg-type] # ParamSpec

    redactor: Redactor = Redactor()  # masks nothing

    @functools.cached_property
    def attempts(self) -> Attempts:
        """The counts of attempts; the engine replaces them by counts that outlive this sender."""
        return Attempts(DeliveryClock())

    async def deliver(self, batch: Batch) -> Outcome:
        """Send a batch once and return its outcome with all secrets masked."""
        began_s = self.attempts.began_s()
        outcome = await self.send(batch)
        self.attempts.count(outcome, batch.events, began_s)
        return await masked(outcome, self.redactor)

    @abstractmethod
    async def open(self, memory: dict[str, object]) -> None:
        """Prepare for sending; a second call starts over.

        `memory` is what the last accepted batch asked to remember.
        """

    @abstractmethod
    async def send(self, batch: Batch) -> Outcome:
        """Send a batch once. Failures of the destination are outcomes, not exceptions."""

    def figures(self) -> dict[str, Any]:
        """Return the sender's own metrics; does not block."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Close all files and connections."""


class RemoteSender(Sender):
    """Send batches over the network; an unexpected error concerns only its batch."""

    async def send(self, batch: Batch) -> Outcome:
        try:
            return await self.attempt(batch)
        except Exception as error:  # noqa: BLE001 - events and responses come from outside
            _log.exception("send_failed", batch=batch.id)
            return Retry(f"internal error: {type(error).__name__}")

    @abstractmethod
    async def attempt(self, batch: Batch) -> Outcome:
        """Send a batch once. An exception is a bug; it is logged, and the batch is retried."""
