"""Masking the secrets of the settings in outcomes, before the engine logs or stores them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from weakref import WeakKeyDictionary

import msgspec

from pixelfast.config import Redactor
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry, Waiting
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["masked"]

_TURN_S = 0.002  # of the event loop, before other tasks run
_GROUP_BYTES = 2**15  # searched at once
_EVENT_BYTES = 64  # counted for an event in addition to its response
# One outcome per turn of the loop: 64 at once would block it 64 times as long.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def masked(
    outcome: Outcome,
    redactor: Redactor,
    clock: DeliveryClock = DeliveryClock(),  # noqa: B008 - only an engine's notices jumps
) -> Outcome:
    """Return the outcome with the secrets of the settings masked in its reasons and responses.

    A response may repeat the request's headers, and an error may quote a URL. Both are logged and
    stored with dead letters.
    """
    if isinstance(outcome, Accepted | Waiting):  # a local path is not a secret
        return outcome
    if isinstance(outcome, Partial):
        return await _every_event_masked(outcome, redactor, clock)
    async with _turn():
        return _masked(outcome, redactor)


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Wait for a turn of the event loop in which nothing else is masked, in order of arrival."""
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield
        await asyncio.sleep(0)


async def _every_event_masked(
    outcome: Partial, redactor: Redactor, clock: DeliveryClock
) -> Partial:
    changed: dict[int, Rejected | Retry] = {}
    steps = _mask(outcome.failed, redactor, changed)
    is_done = False
    while not is_done:
        async with _turn():
            until = clock.monotonic_s() + _TURN_S
            is_done = all(clock.monotonic_s() < until for _ in steps)
    return Partial({**outcome.failed, **changed}) if changed else outcome


def _mask(
    failed: Mapping[int, Rejected | Retry],
    redactor: Redactor,
    changed: dict[int, Rejected | Retry],
) -> Iterator[None]:
    """Put the outcomes in which something is masked into `changed`; yield after each short step."""
    reasons: dict[str, str] = {}  # by original: many events fail for the same reason
    for group in _groups(failed):
        suspects = set(redactor.suspects([each.response for _, each in group]))
        for number, (index, each) in enumerate(group):
            if each.reason not in reasons:
                reasons[each.reason] = redactor.text(each.reason)
                yield
            reason = reasons[each.reason]
            if number in suspects or reason != each.reason:
                response = redactor.data(each.response)
                changed[index] = msgspec.structs.replace(each, reason=reason, response=response)
                yield
        yield


def _groups(
    failed: Mapping[int, Rejected | Retry],
) -> Iterator[list[tuple[int, Rejected | Retry]]]:
    """Group the events so that one search covers the responses of a group."""
    group: list[tuple[int, Rejected | Retry]] = []
    size_bytes = 0
    for index, each in failed.items():
        group.append((index, each))
        size_bytes += _EVENT_BYTES + len(each.response)
        if size_bytes >= _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _masked(outcome: Retry | Rejected | Held, redactor: Redactor) -> Retry | Rejected | Held:
    reason, response = redactor.text(outcome.reason), redactor.data(outcome.response)
    return msgspec.structs.replace(outcome, reason=reason, response=response)
