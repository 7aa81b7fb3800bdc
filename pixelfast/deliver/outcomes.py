"""The possible results of sending a batch, the same for every kind of destination.

An outcome is created for each event that a destination rejects, perhaps thousands per second.
Outcomes are therefore msgspec structs, which take an eighth of the time of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = [
    "BUSY_STATUSES",
    "Accepted",
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


class Partial(msgspec.Struct, frozen=True):
    """The destination accepted the batch except some events, given by their index from 0."""

    failed: Mapping[int, Rejected | Retry] = msgspec.field(default_factory=dict)


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
