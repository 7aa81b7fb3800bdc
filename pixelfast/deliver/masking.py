"""Secrets are taken out of an outcome where it enters the engine: behind it nothing is secret."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from pixelfast.config import Redactor
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry, Waiting
from pixelfast.deliver.timing import Clock

__all__ = ["masked"]

_TURN_S = 0.002  # then others get theirs; a reply of 1 KiB full of secrets takes 0.6 ms
# One outcome a turn of the loop: 64 that come together would hold it 64 times as long.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def masked(
    outcome: Outcome,
    redactor: Redactor,
    clock: Clock = Clock(),  # noqa: B008 - only an engine's notices jumps
) -> Outcome:
    """The outcome with the secrets of the settings masked in its reasons and replies.

    A destination may repeat our headers, and errors may quote a URL. Both are logged, and kept with
    dead letters.
    """
    if isinstance(outcome, Accepted | Waiting):  # a place on our own disk is no secret
        return outcome
    if isinstance(outcome, Partial):
        return await _every_event_masked(outcome, redactor, clock)
    async with _turn():
        return _masked(outcome, redactor)


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """A turn of the loop in which nothing else is masked, in the order of those who ask."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield
        await asyncio.sleep(0)


async def _every_event_masked(outcome: Partial, redactor: Redactor, clock: Clock) -> Partial:
    done: dict[tuple[str, bytes], tuple[str, bytes]] = {}  # many events fail in the same way
    failed: dict[int, Refused | Retry] = {}
    events = iter(outcome.failed.items())
    while len(failed) < len(outcome.failed):
        async with _turn():
            until = clock.monotonic_s() + _TURN_S
            for index, each in events:
                said = each.reason, each.reply
                if said not in done:
                    done[said] = redactor.text(each.reason), redactor.data(each.reply)
                reason, reply = done[said]
                if said != (reason, reply):
                    each = dataclasses.replace(each, reason=reason, reply=reply)
                failed[index] = each
                if clock.monotonic_s() >= until:
                    break
    return dataclasses.replace(outcome, failed=failed)


def _masked(outcome: Retry | Refused | Held, redactor: Redactor) -> Retry | Refused | Held:
    reason, reply = redactor.text(outcome.reason), redactor.data(outcome.reply)
    return dataclasses.replace(outcome, reason=reason, reply=reply)
