"""Write the events of queries, through the entry point that collectors use."""

from __future__ import annotations

import json
from typing import Any

from pixelfast.event import EventWriter, Rules

__all__ = ["NOW_MS", "open_query", "without_additions", "write", "written"]

NOW_MS = 1_700_000_000_000
ADDITIONS = (
    "channel",
    "integrations",
    "messageId",
    "receivedAt",
    "originalTimestamp",
    "sentAt",
    "timestamp",
    "request_ip",
)


def open_query(writer: EventWriter, query: bytes, *, is_track: bool = False) -> None:
    """Open a pixel whose query may contain any bytes."""
    call = b"track" if is_track else b"page"
    opened = writer.open(b"/pixel/v1/%b?%b" % (call, query), is_checked=True)
    assert call.decode() == opened or b"#" in query


def write(
    writer: EventWriter,
    query: bytes,
    rules: Rules,
    *,
    is_track: bool = False,
    received_ms: int = NOW_MS,
    **additions: Any,
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the JSON of a pixel's event, and its warnings."""
    open_query(writer, query, is_track=is_track)
    return writer.write(rules, received_ms, **additions)


def written(
    query: str, *, rules: Rules | None = None, received_ms: int = NOW_MS, **additions: Any
) -> tuple[dict[str, Any], list[str]]:
    """Return the event of a page with a user, and the reasons of its warnings."""
    encoded, warnings = write(
        EventWriter(),
        b"writeKey=k&userId=u&" + query.encode(),
        rules or Rules(),
        received_ms=received_ms,
        **additions,
    )
    return json.loads(encoded), [reason for reason, _ in warnings]


def without_additions(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event without the values that the server adds to every event."""
    return {name: value for name, value in event.items() if name not in ADDITIONS}
