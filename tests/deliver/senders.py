"""An HTTP sender and the scripted destination that it sends to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from pixelfast.deliver.batches import Batch, BatchLimits
from pixelfast.deliver.http.sender import HttpSender, Timeouts
from pixelfast.deliver.outcomes import Outcome
from tests.deliver.spools import batch_of, event
from tests.fake_destination import FakeDestination, Script

LIMITS = BatchLimits(max_events=100, max_bytes=10**6, max_age_s=1.0)
QUICK = Timeouts(total_s=0.3, connect_s=0.3)


@asynccontextmanager
async def using(sender: HttpSender) -> AsyncIterator[HttpSender]:
    await sender.open({})
    try:
        yield sender
    finally:
        await sender.close()


@asynccontextmanager
async def destination_and_sender(
    script: Script = (), form: str = "ndjson", **options: Any
) -> AsyncIterator[tuple[FakeDestination, HttpSender]]:
    async with FakeDestination(script) as destination:
        sender = HttpSender(destination.url, form, LIMITS, **options)
        async with using(sender):
            yield destination, sender


def batch(events: Iterable[bytes], name: str = "b1", attempt: int = 1) -> Batch:
    """Make a batch with this id."""
    made = batch_of(events)
    made.id, made.attempt = name, attempt
    return made


async def send(sender: HttpSender, *numbers: int) -> Outcome:
    return await sender.send(batch([event(n) for n in numbers]))
