"""`pixelfast decode`: show the events that pixels would become."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import orjson

from pixelfast.collect.clock import Clock
from pixelfast.collect.sources import Sources
from pixelfast.config import Config, read_config
from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from pixelfast.printable import json_text

__all__ = ["Explainer", "decode"]

_SERVER_ADDITIONS = (
    "messageId",
    "receivedAt",
    "originalTimestamp",
    "sentAt",
    "timestamp",
    "request_ip",
    "integrations",
    "channel",
)


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET]...", required=True)
@click.option("--full", is_flag=True, help="Include the fields that the server adds.")
@click.option("-c", "--config", metavar="FILE", help="Settings file with sources and write keys.")
def decode(targets: tuple[str, ...], full: bool, config: str | None) -> None:
    """Show the events that pixels would become.

    A TARGET is the path and query of a pixel URL; "-" reads targets from standard input, one per
    line. Each becomes one line of JSON with the status and either the event and its warnings, or
    the error. Without a settings file, every write key is accepted. The exit status is 1 if a pixel
    would be rejected.

    \b
    Example:
      pixelfast decode '/pixel/v1/page?writeKey=k&anonymousId=a&context.screen.width=1920'
    """
    settings = read_config(config, may_lack=("destinations", "cluster")) if config else None
    explainer = Explainer(settings, full=full)
    output = sys.stdout.buffer
    has_rejected = False
    for target in targets:
        lines = sys.stdin.buffer if target == "-" else [os.fsencode(target)]
        for line in lines:
            explained = explainer.explain(line.rstrip(b"\r\n"))
            has_rejected = has_rejected or explained["status"] != 200
            output.write(_line(explained))
            output.flush()
    sys.exit(1 if has_rejected else 0)


class Explainer:
    """Decodes request targets like a collector, and explains the result.

    Without `config`, every non-empty write key is accepted, and the source has default settings.

    >>> Explainer().explain(b"/pixel/v1/page?writeKey=k&userId=7&properties.n=7")["event"]
    {'type': 'page', 'userId': '7', 'properties': {'n': 7}}
    """

    def __init__(self, config: Config | None = None, *, full: bool = False) -> None:
        self._sources = Sources(config.sources) if config else None
        self._events = EventWriter()
        self._clock = Clock()
        self._full = full

    def line(self, target: bytes) -> bytes:
        """Return the result of `explain` as one line of JSON."""
        return _line(self.explain(target))

    def explain(self, target: bytes) -> dict[str, Any]:
        """Return `status` with `event` and `warnings`, or with `error` and `detail`."""
        try:
            event, warnings = self._decode(target)
        except RequestError as error:
            return {"status": error.status, "error": error.reason, "detail": str(error)}
        if not self._full:
            for name in _SERVER_ADDITIONS:
                event.pop(name, None)
        return {
            "status": 200,
            "event": event,
            "warnings": [
                {"parameter": key.decode("utf-8", "replace"), "reason": reason}
                for reason, key in warnings
            ],
        }

    def _decode(self, target: bytes) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        if self._events.open(target) not in ("track", "page"):
            raise RequestError(
                404, "not-found", "the paths of pixels are /pixel/v1/track and /pixel/v1/page"
            )
        now_ms = self._clock.now_ms()
        key = self._events.write_key()
        if not key:
            raise RequestError(400, "no-write-key", "the parameter writeKey is missing")
        rules = self._sources.check(key, now_ms).rules if self._sources else Rules()
        address = "127.0.0.1" if self._full else ""
        encoded, warnings = self._events.write(rules, now_ms, address=address)
        return orjson.loads(encoded), warnings


def _line(explained: dict[str, Any]) -> bytes:
    return f"{json_text(explained)}\n".encode()
