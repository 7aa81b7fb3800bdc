"""`pixelfast tail`: the events as they are stored. It writes nothing; the server may run or not."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import click

from pixelfast.commands.lines import stdout_may_close, write_lines
from pixelfast.commands.options import with_stored_data
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
    help="Begin with at most N events that are stored already.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    help="Only of this source; may be repeated.",
)
@click.option("--follow/--no-follow", default=True, help="Wait for more events; the default.")
@with_stored_data
def tail(events: int, sources: tuple[str, ...], follow: bool, settings: Config) -> None:
    """Write new events to stdout as they are stored, one JSON object per line.

    It reads the spool and needs no server. Events of one collector are in order. At the start the
    newest 256 KiB of each slot are searched. Ctrl-C ends it.

    \b
    Example:
      pixelfast tail -c pixelfast.toml --source web | jq .event
    """
    set_up_logging(Log(level="error"))
    follower = _Follower(DataDir.find(settings.data_dir))
    with stdout_may_close(), contextlib.suppress(KeyboardInterrupt):
        chosen = [each for each in follower.begin() if not sources or each.source in sources]
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
    """Reads what is stored in all slots from now on, also in slots that are new."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._readers: dict[int, SlotReader] = {}

    def begin(self) -> list[Frame]:
        """Return the newest frames of all slots, in the order of their times; go on behind them."""
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
        """Yield what has come since the last call."""
        for slot in self._data.slots():
            if slot not in self._readers:
                self._follow(slot, Position())
            while frames := self._readers[slot].read():
                yield from frames

    def _follow(self, slot: int, start: Position) -> None:
        # Damage is for delivery and `spool check` to report.
        self._readers[slot] = SlotReader(self._data, slot, start, on_damage=lambda *_: None)


def _last_lines(frames: list[Frame], count: int) -> list[bytes]:
    lines: list[bytes] = []
    for frame in reversed(frames):
        if len(lines) >= count:
            break
        lines += reversed(bytes(frame.body).splitlines(keepends=True))
    return list(reversed(lines[:count]))
