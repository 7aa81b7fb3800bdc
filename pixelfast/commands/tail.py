"""`pixelfast tail`: print new events as they are stored, without changing anything."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import click

from pixelfast.commands.lines import stdout_may_close, write_lines
from pixelfast.commands.options import with_stored_data
from pixelfast.commands.sources import reject_unknown_sources, with_source_names
from pixelfast.config import Config, Log
from pixelfast.operate.logging import set_up_logging
from pixelfast.spool import DataDir, Frame, LogEnd, Position, SlotReader, newest_frames

__all__ = ["tail"]

_POLL_S = 0.2


@click.command()
@click.option(
    "-n",
    "--events",
    type=click.IntRange(min=0, max=100_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Maximum number of stored events to print first.",
)
@with_source_names
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for new events.")
@with_stored_data
def tail(events: int, sources: tuple[str, ...], follow: bool, settings: Config) -> None:
    """Print new events as they are stored.

    Each event is one line of JSON. Events are read from the spool, so no server is needed. Events
    of one collector are printed in order. The stored events that are printed first come from the
    newest 256 KiB of each slot. With `[cluster]`, only events of this machine are printed. Ctrl-C
    stops the command.

    A source that is neither in the settings nor among these events is an error, but without a
    settings file, --follow waits for its first event.

    \b
    Example:
      pixelfast tail -c pixelfast.toml --source web | jq .event
    """
    set_up_logging(Log(level="error"))
    follower = _Follower(DataDir.find(settings.data_dir))
    with stdout_may_close(), contextlib.suppress(KeyboardInterrupt):
        newest = follower.begin()
        if settings.sources or not follow:
            reject_unknown_sources(sources, settings, {each.source for each in newest})
        chosen = [each for each in newest if not sources or each.source in sources]
        for line in _last_lines(chosen, events):
            write_lines(line)
        sys.stdout.buffer.flush()
        while follow:
            for frame in follower.read():
                if not sources or frame.source in sources:
                    write_lines(frame.body)
            sys.stdout.buffer.flush()
            time.sleep(_POLL_S)


class _Follower:
    """Reads new events of all slots, including new slots."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._readers: dict[int, SlotReader] = {}

    def begin(self) -> list[Frame]:
        """Return the newest frames of all slots, ordered by time; `read` continues after them."""
        found: list[Frame] = []
        for slot in self._data.slots():
            newest = newest_frames(self._data, slot)
            if newest:
                last = newest[-1]
                self._follow(slot, Position(last.segment, last.offset + last.length))
            else:
                self._follow(slot, LogEnd(self._data, slot).refresh()[0])
            found += newest
        return sorted(found, key=lambda frame: frame.received_ms)

    def read(self) -> Iterator[Frame]:
        """Yield the frames that were stored since the last call."""
        for slot in self._data.slots():
            if slot not in self._readers:
                self._follow(slot, Position())
            while frames := self._readers[slot].read():
                yield from frames

    def _follow(self, slot: int, start: Position) -> None:
        # Delivery and `spool check` report damage.
        self._readers[slot] = SlotReader(self._data, slot, start, on_damage=lambda *_: None)


def _last_lines(frames: list[Frame], count: int) -> list[bytes]:
    lines: list[bytes] = []
    for frame in reversed(frames):
        if len(lines) >= count:
            break
        lines += reversed(bytes(frame.body).splitlines(keepends=True))
    return list(reversed(lines[:count]))
