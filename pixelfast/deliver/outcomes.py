"""The possible results of sending a batch, the same for every kind of destination.

A destination may reject thousands of events per second, nearly always for few reasons. An object
for each of them would take more CPU time than the delivery of all other events. The failures of a
batch are therefore grouped, and a group keeps the responses in one buffer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pixelfast.deliver.excerpts import Excerpts

__all__ = [
    "BUSY_STATUSES",
    "Accepted",
    "FailureGroup",
    "Failures",
    "Held",
    "Outcome",
    "Partial",
    "Rejected",
    "Retry",
    "Waiting",
    "accepts",
]

BUSY_STATUSES = frozenset({408, 425, 429, 503})  # HTTP statuses of a busy destination


class Accepted(msgspec.Struct, frozen=True):
    """The destination accepted the batch. `memory` is stored with the cursors for the next run."""

    memory: dict[str, object] | None = None


class Retry(msgspec.Struct, frozen=True, gc=False):
    """As far as is known, the destination does not have the batch, which is retried.

    Network errors, timeouts, and the statuses 408, 425, 429 and temporary 5xx.

    Attributes:
        after_s: minimum time before the next attempt.
        status: the HTTP status; 0 if there was no response.
        response: the beginning of the response's body.
    """

    reason: str
    after_s: float = 0.0
    status: int = 0
    response: bytes = b""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The destination rejects these events for good: 400, 413, 422.

    The batch is divided until the bad events are found. If `is_too_large` (413), later batches
    also become smaller.
    """

    reason: str
    status: int = 0
    response: bytes = b""
    is_too_large: bool = False


class Held(msgspec.Struct, frozen=True, gc=False):
    """The settings are wrong, not the events: 401, 403, 404, 3xx and similar statuses.

    No event is dropped; the destination is retried slowly. If `is_final`, it is not retried before
    the next start (410: it has asked for no more requests).
    """

    reason: str
    status: int = 0
    response: bytes = b""
    is_final: bool = False


class FailureGroup(NamedTuple):
    """Events of a batch that failed in the same way.

    Attributes:
        why: how they failed, without a response.
        places: their indexes in the batch, in ascending order.
        responses: the beginning of the response to each.
    """

    why: Rejected | Retry
    places: Sequence[int]
    responses: Excerpts


class Failures(Mapping[int, "Rejected | Retry"]):
    """How some events of a batch failed, by their index from 0.

    >>> no = Rejected("status 400", 400, b"no")
    >>> failures = Failures.of({1: no, 3: Retry("status 503"), 5: no})
    >>> failures.groups[0].places, failures[5], len(failures)
    ([1, 5], Rejected(reason='status 400', status=400, response=b'no', is_too_large=False), 3)
    """

    __slots__ = ("_events", "groups")

    def __init__(self, groups: Iterable[FailureGroup] = ()) -> None:
        self.groups = tuple(groups)
        self._events = sum(len(group.places) for group in self.groups)

    @classmethod
    def of(cls, failed: Mapping[int, Rejected | Retry]) -> Failures:
        """Group failures by how the events failed."""
        alike: dict[tuple[object, ...], tuple[list[int], list[bytes]]] = {}
        for place in sorted(failed):
            each = failed[place]
            places, responses = alike.setdefault(_way(each), ([], []))
            places.append(place)
            responses.append(each.response)
        return cls(
            FailureGroup(_without_response(failed[places[0]]), places, Excerpts.of(responses))
            for places, responses in alike.values()
        )

    @classmethod
    def same(cls, why: Rejected | Retry, places: Sequence[int]) -> Failures:
        """Return the failures of events that got the same response."""
        responses = Excerpts.of([why.response] * len(places))
        return cls([FailureGroup(_without_response(why), places, responses)] if places else ())

    def only(self, kind: type[Rejected | Retry]) -> Failures:
        """Return the failures of one kind."""
        if all(isinstance(group.why, kind) for group in self.groups):
            return self
        return Failures(group for group in self.groups if isinstance(group.why, kind))

    def without(self, excluded: Collection[int]) -> Failures:
        """Return the failures of the other events."""
        if not excluded:
            return self
        kept = []
        for why, places, responses in self.groups:
            chosen = [n for n, place in enumerate(places) if place not in excluded]
            if chosen:
                kept.append(
                    FailureGroup(why, [places[n] for n in chosen], responses.picked(chosen))
                )
        return Failures(kept)

    @property
    def first(self) -> Rejected | Retry:
        """How the first event failed; there must be one."""
        return self[min(group.places[0] for group in self.groups)]

    def __getitem__(self, place: int) -> Rejected | Retry:
        for why, places, responses in self.groups:
            n = bisect_left(places, place)
            if n < len(places) and places[n] == place:
                return msgspec.structs.replace(why, response=responses[n])
        raise KeyError(place)

    def __iter__(self) -> Iterator[int]:
        if len(self.groups) == 1:
            return iter(self.groups[0].places)
        return iter(sorted(place for group in self.groups for place in group.places))

    def __len__(self) -> int:
        return self._events

    def __repr__(self) -> str:
        return f"Failures.of({dict(self)})"


def _way(failure: Rejected | Retry) -> tuple[object, ...]:
    """Return everything about a failure except its response."""
    extra = failure.is_too_large if isinstance(failure, Rejected) else failure.after_s
    return type(failure), failure.reason, failure.status, extra


def _without_response(failure: Rejected | Retry) -> Rejected | Retry:
    return msgspec.structs.replace(failure, response=b"")


class Partial(msgspec.Struct, frozen=True):
    """The destination accepted the batch except some events."""

    failed: Failures = msgspec.field(default_factory=Failures)

    @classmethod
    def of(cls, failed: Mapping[int, Rejected | Retry]) -> Partial:
        """Return the outcome of a batch with these failures, by the index of each event."""
        return cls(Failures.of(failed))


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """The destination lacks disk space for the batch now, which is retried until there is enough.

    This is not a failure, and no event becomes a dead letter for it. `reason` stays the same as
    long as the cause does.
    """

    reason: str


Outcome = Accepted | Retry | Rejected | Held | Partial | Waiting


def accepts(outcome: Outcome, events: int) -> bool:
    """Whether the destination has accepted at least one of the batch's `events` events."""
    if isinstance(outcome, Partial):
        return len(outcome.failed) < events
    return isinstance(outcome, Accepted)
