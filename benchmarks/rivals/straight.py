"""What every straight handler does with a pixel: pixelfast's decoder, a buffered write.

The decoder goes by templates, as in pixelfast, so only the server around it differs. Nothing is
synced: a crash loses what was answered.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

from pixelfast.errors import RequestError
from pixelfast.event import Decoder, Rules, encode_event, fill_template

__all__ = ["BUFFER_BYTES", "GIF", "KEY", "NO_STORE", "Pixels", "events_file"]

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
NO_STORE = "no-store"
BUFFER_BYTES = 64 * 1024
KEY = "wk-demo"


def events_file() -> Path:
    """Where the events go, one a line."""
    return Path(os.environ["RIVAL_EVENTS"])


class Pixels:
    """Takes pixels; `close` writes what is still in the buffer."""

    def __init__(self) -> None:
        self._file = events_file().open("ab", BUFFER_BYTES)
        self._decoder, self._rules = Decoder(), Rules()

    def take(self, is_track: bool, query: bytes, address: str, user_agent: str | None) -> int:
        """The status to answer with."""
        decoder, rules, now_ms = self._decoder, self._rules, time.time_ns() // 1_000_000
        try:
            decoder.split(query)
            if decoder.write_key() != KEY:
                return 401
            agent = user_agent.encode() if user_agent else b""
            found = fill_template(decoder, rules, is_track, now_ms, address, agent)
            if found is not None:
                line, _ = found
            else:
                event = decoder.decode(rules, is_track)
                line = encode_event(event, now_ms, address, user_agent, None)
        except RequestError as error:
            return error.status
        self._file.write(line + b"\n")
        return 200

    def close(self) -> None:
        self._file.close()
