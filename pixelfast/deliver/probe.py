"""Probing a destination with the newest events, to see whether it accepts any event at all.

All of the oldest events may be bad while newer ones are good. A probe sends copies: the events are
delivered again in their turn, with the same messageId. Each probe has its own id, so that no
destination mistakes it for a batch that it has.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from pixelfast.deliver.batches import Batch, after_events
from pixelfast.deliver.outcomes import (
    BUSY_STATUSES,
    Held,
    Outcome,
    Rejected,
    Retry,
    accepts,
)
from pixelfast.deliver.selection import Selection
from pixelfast.deliver.sender import Sender
from pixelfast.spool import DataDir, Frame, Position, newest_frames

__all__ = ["MAX_PROBED", "Probed", "newest_events", "send_all", "send_some"]

MAX_PROBED = 64
_MAX_SINGLE = 16


def newest_events(
    data: DataDir, cursors: Mapping[int, Position], selection: Selection
) -> list[bytes]:
    """Return the newest events in all slots that a destination accepts and has not read yet.

    At most 64 events, each with its line feed. Blocks for the disk.
    """
    picks = selection.picker() if selection.parses else None
    found: list[tuple[int, bytes]] = []
    for slot in data.slots():
        cursor = cursors.get(slot, Position())
        for frame in newest_frames(data, slot):
            if selection.takes_source(frame.source):
                events = _unread(frame, cursor)
                found += [(frame.received_ms, each) for each in events if not picks or picks(each)]
    found.sort(key=lambda each: each[0])
    return [event for _, event in found[-MAX_PROBED:]]


def _unread(frame: Frame, cursor: Position) -> list[bytes]:
    place = (frame.segment, frame.offset)
    if place < cursor[:2]:
        return []
    skip = cursor.skip if place == cursor[:2] else 0
    if skip >= frame.events:
        return []
    lines = bytes(frame.body[after_events(frame.body, 0, skip) :]).split(b"\n")[:-1]
    return [line + b"\n" for line in lines]


class Probed(NamedTuple):
    """The result of a probe.

    Attributes:
        outcome: the most informative outcome of its requests.
        events: the number of events in that request.
        accepted, failed: the numbers of events that were sent one by one.
    """

    outcome: Outcome
    events: int
    accepted: int = 0
    failed: int = 0


async def send_some(sender: Sender, events: list[bytes]) -> Probed:
    """Send copies of at most 16 events one by one, to a destination that fails.

    Stop at the first request without a response. While the destination responds, it may be up and
    fail only for some events.
    """
    accepted = failed = 0
    told: Outcome | None = None
    for event in random.sample(events, min(_MAX_SINGLE, len(events))):
        outcome = await sender.deliver(_batch([event]))
        is_accepted = accepts(outcome, 1)
        accepted, failed = accepted + is_accepted, failed + (not is_accepted)
        if is_accepted or told is None:
            told = outcome
        if not (is_accepted or _is_response(outcome)):
            break
    assert told is not None, "there are events"
    return Probed(told, 1, accepted, failed)


async def send_all(sender: Sender, events: list[bytes]) -> Probed:
    """Send copies of events until one is accepted; divide batches that are rejected."""
    waiting = [events]
    while True:
        lines = waiting.pop()
        outcome = await sender.deliver(_batch(lines))
        if not isinstance(outcome, Rejected):
            return Probed(outcome, len(lines))
        if len(lines) > 1:
            middle = len(lines) // 2
            waiting += [lines[:middle], lines[middle:]]
        if not waiting:
            return Probed(outcome, len(lines))


def _is_response(outcome: Outcome) -> bool:
    """Whether a destination responded with a failure, and did not say that it is busy."""
    if not isinstance(outcome, Retry | Held) or outcome.status in BUSY_STATUSES:
        return False
    return outcome.status > 0 and not (isinstance(outcome, Retry) and outcome.after_s)


def _batch(lines: list[bytes]) -> Batch:
    return Batch(id=f"probe-{uuid.uuid4().hex}", body=b"".join(lines), events=len(lines))
