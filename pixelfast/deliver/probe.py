"""Sending the newest events ahead, to see whether a destination accepts anything at all.

The oldest events may be bad without end, those behind them not. What is sent ahead is a copy: it is
delivered in its turn, too, with the same messageId. A probe has an id of its own, so that no
destination takes one for a batch that it knows.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping

from pixelfast.deliver.batches import Batch, after_events
from pixelfast.deliver.destinations import Sender
from pixelfast.deliver.outcomes import Accepted, Outcome, Partial, Refused
from pixelfast.deliver.selection import Selection
from pixelfast.spool import DataDir, Frame, Position, newest_frames

__all__ = ["MOST_PROBED", "accepts", "newest_events", "send_ahead"]

MOST_PROBED = 64


def newest_events(
    data: DataDir, cursors: Mapping[int, Position], selection: Selection
) -> list[bytes]:
    """The newest events of all slots that a destination takes and has not read yet.

    Each with its line feed. Blocks for the disk.
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
    return [event for _, event in found[-MOST_PROBED:]]


def _unread(frame: Frame, cursor: Position) -> list[bytes]:
    place = (frame.segment, frame.offset)
    if place < cursor[:2]:
        return []
    skip = cursor.skip if place == cursor[:2] else 0
    if skip >= frame.events:
        return []
    lines = bytes(frame.body[after_events(frame.body, 0, skip) :]).split(b"\n")[:-1]
    return [line + b"\n" for line in lines]


async def send_ahead(sender: Sender, events: list[bytes], *, is_down: bool) -> Outcome:
    """Send copies of events until one is accepted; returns the answer that tells most.

    `is_down`: only one of them, in one request: the destination fails. Otherwise it rejects, and
    all of them are sent, divided as long as they are rejected together.
    """
    if is_down:
        return await sender.deliver(_batch([random.choice(events)]))  # noqa: S311
    waiting = [events]
    while True:
        lines = waiting.pop()
        outcome = await sender.deliver(_batch(lines))
        if not isinstance(outcome, Refused):
            return outcome
        if len(lines) > 1:
            middle = len(lines) // 2
            waiting += [lines[:middle], lines[middle:]]
        if not waiting:
            return outcome


def accepts(outcome: Outcome, events: int) -> bool:
    """Whether a destination has accepted some of a batch of so many events."""
    if isinstance(outcome, Partial):
        return len(outcome.failed) < events
    return isinstance(outcome, Accepted)


def _batch(lines: list[bytes]) -> Batch:
    return Batch(id=f"probe-{uuid.uuid4().hex}", body=b"".join(lines), events=len(lines))
