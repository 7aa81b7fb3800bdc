"""Secrets are taken out of an outcome where it enters the engine: behind it nothing is secret."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from weakref import WeakKeyDictionary

import msgspec

from pixelfast.config import Redactor
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry, Waiting
from pixelfast.deliver.timing import Clock

__all__ = ["masked"]

_TURN_S = 0.002  # then others get theirs
_GROUP_BYTES = 4096  # between two looks at the clock; 1 KiB full of secrets takes 0.6 ms
_EVENT_BYTES = 64  # that an event counts for beside its reply
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
    reasons: dict[str, str] = {}  # many events fail in the same way
    failed: dict[int, Refused | Retry] = {}
    groups = _groups(outcome.failed)
    while len(failed) < len(outcome.failed):
        async with _turn():
            until = clock.monotonic_s() + _TURN_S
            for group in groups:
                masked_replies = redactor.all_data([each.reply for _, each in group])
                for (index, each), reply in zip(group, masked_replies, strict=True):
                    if each.reason not in reasons:
                        reasons[each.reason] = redactor.text(each.reason)
                    reason = reasons[each.reason]
                    if reply is not each.reply or reason != each.reason:
                        each = msgspec.structs.replace(each, reason=reason, reply=reply)
                    failed[index] = each
                if clock.monotonic_s() >= until:
                    break
    return Partial(failed)


def _groups(
    failed: Mapping[int, Refused | Retry],
) -> Iterator[list[tuple[int, Refused | Retry]]]:
    """The events in groups whose replies are masked together: one search for all of them."""
    group: list[tuple[int, Refused | Retry]] = []
    size_bytes = 0
    for index, each in failed.items():
        group.append((index, each))
        size_bytes += _EVENT_BYTES + len(each.reply)
        if size_bytes >= _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _masked(outcome: Retry | Refused | Held, redactor: Redactor) -> Retry | Refused | Held:
    reason, reply = redactor.text(outcome.reason), redactor.data(outcome.reply)
    return msgspec.structs.replace(outcome, reason=reason, reply=reply)
