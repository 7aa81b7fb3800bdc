"""Masking the secrets of the settings in outcomes, before the engine logs or stores them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from operator import is_
from weakref import WeakKeyDictionary

import msgspec

from pixelfast.config import Redactor
from pixelfast.deliver.excerpts import Excerpts
from pixelfast.deliver.outcomes import (
    Accepted,
    FailureGroup,
    Failures,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
    Waiting,
)
from pixelfast.deliver.timing import DeliveryClock

__all__ = ["masked"]

_TURN_S = 0.002  # of the event loop, before other tasks run
_STEP_BYTES = 2**15  # searched at once
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
    groups: list[FailureGroup] = []
    steps = _mask(outcome.failed, redactor, groups)
    is_done = False
    while not is_done:
        async with _turn():
            until = clock.monotonic_s() + _TURN_S
            is_done = all(clock.monotonic_s() < until for _ in steps)
    is_same = all(map(is_, outcome.failed.groups, groups))
    return outcome if is_same else Partial(Failures(groups))


def _mask(failed: Failures, redactor: Redactor, groups: list[FailureGroup]) -> Iterator[None]:
    """Append the masked groups of failures to `groups`; yield after each short step.

    A group in which nothing is masked stays the same object.
    """
    for group in failed.groups:
        reason = redactor.text(group.why.reason)
        yield
        responses = group.responses
        changed: dict[int, bytes] = {}
        start = 0
        while start < len(responses):
            stop = responses.fitting(start, _STEP_BYTES, _EVENT_BYTES)
            for index in _suspects(responses, start, stop, redactor):
                changed[index] = redactor.data(responses[index])
                yield
            start = stop
            yield
        if changed:
            responses = Excerpts.of(
                changed.get(index, each) for index, each in enumerate(responses)
            )
        if changed or reason is not group.why.reason:
            why = msgspec.structs.replace(group.why, reason=reason)
            group = group._replace(why=why, responses=responses)
        groups.append(group)


def _suspects(responses: Excerpts, start: int, stop: int, redactor: Redactor) -> list[int]:
    """Return the indexes of those responses from `start` to `stop` that may contain a secret."""
    first = responses.start_of(start)

    def end_of(position: int) -> int:
        return responses.end_of(responses.index_at(first + position)) - first

    suspects: set[int] = set()
    for position in redactor.suspects(responses.span(start, stop), end_of):
        index = responses.index_at(first + position)
        suspects.add(
            index
        )  # even if the position is before it, because the search continued after it
        while index + 1 < stop and responses.start_of(index + 1) <= first + position:
            index += 1  # several events have the same response
            suspects.add(index)
    return sorted(suspects)


def _masked(outcome: Retry | Rejected | Held, redactor: Redactor) -> Retry | Rejected | Held:
    reason, response = redactor.text(outcome.reason), redactor.data(outcome.response)
    return msgspec.structs.replace(outcome, reason=reason, response=response)
