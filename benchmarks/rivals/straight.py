"""The handler of all rivals: pixelfast's event writer and a buffered write.

It writes events by templates, as pixelfast does, so only the server around it differs. Nothing is
synced: a crash loses events whose pixels received a 200.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules

__all__ = ["BUFFER_BYTES", "GIF", "KEY", "NO_STORE", "Pixels", "events_file"]

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
NO_STORE = "no-store"
BUFFER_BYTES = 64 * 1024
KEY = "wk-demo"


def events_file() -> Path:
    """Return the file of the events, which has one per line."""
    return Path(os.environ["RIVAL_EVENTS"])


class Pixels:
    """Accept pixels; `close` writes what is still in the buffer."""

    def __init__(self) -> None:
        self._file = events_file().open("ab", BUFFER_BYTES)
        self._events, self._rules = EventWriter(), Rules()

    def take(self, is_track: bool, query: bytes, address: str, user_agent: str | None) -> int:
        """Store the event of a pixel; return the status of the response."""
        target = b"/pixel/v1/%b?%b" % (b"track" if is_track else b"page", query)
        try:
            self._events.open(target, is_checked=True)
            if self._events.write_key() != KEY:
                return 401
            line, _ = self._events.write(
                self._rules,
                time.time_ns() // 1_000_000,
                address=address,
                user_agent=user_agent.encode() if user_agent else b"",
            )
        except RequestError as error:
            return error.status
        self._file.write(line + b"\n")
        return 200

    def close(self) -> None:
        self._file.close()
