"""Probing a destination with the newest events, to see whether it accepts any event at all.

All of the oldest events may be bad while newer ones are good. A probe sends copies: the events are
delivered again in their turn, with the same messageId. Each probe has its own id, so that no
destination mistakes it for a batch that it has.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pixelfast.deliver.batches import Batch, after_events, some_events
from pixelfast.deliver.event_log import EventLog
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
from pixelfast.spool import Frame, Position

__all__ = ["MAX_PROBED", "Probed", "newest_events", "send_all", "send_some"]

MAX_PROBED = 64
_MAX_SINGLE = 16


def newest_events(log: EventLog, cursors: Mapping[int, Position], selection: Selection) -> Batch:
    """Return the newest events in all slots that a destination accepts and has not read yet.

    At most 64 events. Blocks.
    """
    picks = selection.picker() if selection.parses else None
    found: list[tuple[int, str, bytes]] = []
    for slot in log.slots():
        cursor = cursors.get(slot, Position())
        for frame in log.newest(slot):
            if selection.takes_source(frame.source):
                events = (each for each in _unread(frame, cursor) if not picks or picks(each))
                found += [(frame.received_ms, frame.source, each) for each in events]
    found.sort(key=lambda each: each[0])
    newest = found[-MAX_PROBED:]
    lines, sources = [event for _, _, event in newest], [source for _, source, _ in newest]
    return some_events(lines, sources, range(len(newest)))


def _unread(frame: Frame, cursor: Position) -> list[bytes]:
    place = (frame.segment, frame.offset)
    if place < cursor[:2]:
        return []
    skip = cursor.skip if place == cursor[:2] else 0
    if skip >= frame.events:
        return []
    return bytes(frame.body[after_events(frame.body, 0, skip) :]).split(b"\n")[:-1]


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


async def send_some(sender: Sender, events: Batch) -> Probed:
    """Send copies of at most 16 events one by one, to a destination that fails.

    Stop at the first request without a response. While the destination responds, it may be up and
    fail only for some events.
    """
    accepted = failed = 0
    told: Outcome | None = None
    for place in random.sample(range(events.events), min(_MAX_SINGLE, events.events)):
        outcome = await sender.deliver(_probe(events, [place]))
        is_accepted = accepts(outcome, 1)
        accepted, failed = accepted + is_accepted, failed + (not is_accepted)
        if is_accepted or told is None:
            told = outcome
        if not (is_accepted or _is_response(outcome)):
            break
    assert told is not None, "there are events"
    return Probed(told, 1, accepted, failed)


async def send_all(sender: Sender, events: Batch) -> Probed:
    """Send copies of events until one is accepted; divide batches that are rejected."""
    waiting: list[Sequence[int]] = [range(events.events)]
    while True:
        places = waiting.pop()
        outcome = await sender.deliver(_probe(events, places))
        if not isinstance(outcome, Rejected):
            return Probed(outcome, len(places))
        if len(places) > 1:
            middle = len(places) // 2
            waiting += [places[:middle], places[middle:]]
        if not waiting:
            return Probed(outcome, len(places))


def _is_response(outcome: Outcome) -> bool:
    """Whether a destination responded with a failure, and did not say that it is busy."""
    if not isinstance(outcome, Retry | Held) or outcome.status in BUSY_STATUSES:
        return False
    return outcome.status > 0 and not (isinstance(outcome, Retry) and outcome.after_s)


def _probe(events: Batch, places: Sequence[int]) -> Batch:
    """Return a batch with some of the events, whose id no other batch has."""
    probe = some_events(events.lines(), events.sources(), places)
    probe.id = f"probe-{uuid.uuid4().hex}"
    return probe
