"""What became of a send: what the engine is told by every kind of destination.

One is made for each event that a destination rejects, and there may be thousands a second. So they
are structs of msgspec, which are made in an eighth of the time of a frozen dataclass.
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

BUSY_STATUSES = frozenset({408, 425, 429, 503})  # of HTTP: the destination says that it is busy


class Accepted(msgspec.Struct, frozen=True):
    """The destination has the batch. `memory` is kept with the cursors, for the next start."""

    memory: dict[str, object] | None = None


class Retry(msgspec.Struct, frozen=True, gc=False):
    """The destination does not have the batch, as far as we know: send it again.

    Network faults, time limits, 408, 425, 429, and 5xx that may pass.
    """

    reason: str
    after_s: float = 0.0  # at least this long from now
    status: int = 0  # of HTTP; 0: none came
    response: bytes = b""  # the beginning of its body


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """The destination does not want these events, and will not tomorrow: 400, 413, 422.

    A batch is halved down to the events that are to blame.
    """

    reason: str
    status: int = 0
    response: bytes = b""
    is_too_large: bool = False  # 413: batches get smaller, too


class Held(msgspec.Struct, frozen=True, gc=False):
    """Something is wrong with the settings, not with the events: 401, 403, 404, 3xx and the like.

    Nothing is thrown away; the destination is tried again slowly. `is_final`: not before the next
    start (410: the destination has asked not to be sent anything any more).
    """

    reason: str
    status: int = 0
    response: bytes = b""
    is_final: bool = False


class Partial(msgspec.Struct, frozen=True):
    """The destination has the batch but for some events, by their index in it, counted from 0."""

    failed: Mapping[int, Rejected | Retry] = msgspec.field(default_factory=dict)


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """There is no room for the batch at the destination now: it is sent again until there is.

    Nothing has failed, and no event dies of it. `reason` stays the same while the cause does.
    """

    reason: str


Outcome = Accepted | Retry | Rejected | Held | Partial | Waiting


def accepts(outcome: Outcome, events: int) -> bool:
    """Whether a destination has accepted some of a batch of so many events."""
    if isinstance(outcome, Partial):
        return len(outcome.failed) < events
    return isinstance(outcome, Accepted)
