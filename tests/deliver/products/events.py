"""Events in the format of a collector."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

__all__ = ["message_id", "page", "tracked"]


def message_id(number: int) -> str:
    return str(UUID(int=number, version=4))


def tracked(number: int, /, **more: Any) -> bytes:
    """Return an event of type track; `more` adds or replaces fields at its root."""
    event = {
        "type": "track",
        "anonymousId": f"a{number}",
        "event": "Email Opened",
        "properties": {"number": number},
        "channel": "web",
        "messageId": message_id(number),
        "receivedAt": "2026-01-31T00:00:00.000Z",
        "timestamp": "2026-01-31T00:00:00.000Z",
        "request_ip": "192.0.2.1",
    }
    return json.dumps(event | more, separators=(",", ":"), ensure_ascii=False).encode()


def page(number: int, /, **more: Any) -> bytes:
    return tracked(number, type="page", event=None, name="Home", **more)
