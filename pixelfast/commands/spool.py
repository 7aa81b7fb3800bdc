"""`pixelfast spool`: list, check and print the stored events, without changing anything."""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pixelfast.commands.lines import stdout_may_close, write_lines
from pixelfast.commands.options import with_stored_data
from pixelfast.commands.sources import reject_unknown_sources, with_source_names
from pixelfast.commands.tables import print_table
from pixelfast.config import Config, Log
from pixelfast.operate.logging import set_up_logging
from pixelfast.spool import DataDir, Frame, LogEnd, Position, SlotReader, number_at
from pixelfast.spool.end import first_frame, newest_frame
from pixelfast.spool.retention import slot_bytes

__all__ = ["spool"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Moment(click.ParamType[int]):
    """A time in milliseconds since 1970, given as RFC 3339 or as an age."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if match := _DURATION.fullmatch(value):
            return int((time.time() - float(match[1]) * _SECONDS[match[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(
                f'{value!r}: expected a time such as "2026-01-31T10:00:00Z" or an age such as "2h"',
                param,
                ctx,
            )
        return int(moment.timestamp() * 1000)


@click.group()
def spool() -> None:
    """List, check and print the stored events.

    These commands work whether or not the server is running, and change nothing.

    \b
    Example:
      pixelfast spool ls -c pixelfast.toml
    """


@spool.command()
@with_stored_data
def ls(settings: Config) -> None:
    """List the slots and the undelivered events of each destination.

    Sizes are in bytes, and times are in UTC. With `[cluster]`, the events that are not replicated
    are listed instead of those of destinations.

    \b
    Example:
      pixelfast spool ls --data-dir /var/lib/pixelfast
    """
    data = _find(settings)
    headers = ["slot", "segments", "bytes", "events", "first", "last"]
    if settings.cluster is not None:
        # Imported here so that nothing of it is loaded without the setting.
        from pixelfast.cluster.backlog import backlogs

        left = {each.slot: each.events for each in backlogs(data)}
        rows = [(*_survey(data, slot, {}), left.get(slot, 0)) for slot in data.slots()]
        print_table([*headers, "not replicated"], rows)
        return
    cursors = {path.parent.name: _cursors(path) for path in _state_files(data)}
    headers += [f"{name} pending" for name in cursors]
    print_table(headers, [_survey(data, slot, cursors) for slot in data.slots()])


@spool.command()
@with_stored_data
def check(settings: Config) -> None:
    """Read the whole spool and verify every frame.

    The exit status is 1 if there is damage. An event that was being written when the server crashed
    counts as damage, although it was never acknowledged. Gaps in the event numbers are not damage,
    because the numbers of rejected events are not reused.

    \b
    Example:
      pixelfast spool check -c pixelfast.toml
    """
    data = _find(settings)
    damage: list[str] = []
    rows = [_check(data, slot, damage) for slot in data.slots()]
    headers = ["slot", "frames", "events", "missing", "repeated", "newer", "damaged bytes"]
    print_table(headers, rows)
    for line in damage:
        click.echo(f"damaged: {line}", err=True)
    sys.exit(1 if damage else 0)


@spool.command()
@with_source_names
@click.option(
    "--since",
    type=_Moment(),
    metavar="TIME",
    help="Print only events since this time: RFC 3339, or an age such as 90s, 5m, 2h or 3d.",
)
@click.option("--until", type=_Moment(), metavar="TIME", help="Print only events before this time.")
@with_stored_data
def dump(
    sources: tuple[str, ...],
    since: int | None,
    until: int | None,
    settings: Config,
) -> None:
    """Print the stored events, one JSON object per line.

    They are printed slot by slot. The events of a source in one commit share the time of the first;
    the others arrived within milliseconds, or within 2 s on a slow disk. Damaged parts are skipped
    and reported. A source that is neither in the settings nor in the spool is an error.

    \b
    Example:
      pixelfast spool dump --source web --since 2h > events.ndjson
    """
    data = _find(settings)
    damage: list[str] = []
    stored: set[str] = set()
    is_complete = False
    with stdout_may_close():
        for slot in data.slots():
            for frame in _frames(data, _reader(data, slot, damage)):
                stored.add(frame.source)
                if (
                    (not sources or frame.source in sources)
                    and (since is None or frame.received_ms >= since)
                    and (until is None or frame.received_ms < until)
                ):
                    write_lines(frame.body)
        is_complete = True
    for line in damage:
        click.echo(f"damaged: {line}", err=True)
    if is_complete:
        reject_unknown_sources(sources, settings, stored)


def _find(settings: Config) -> DataDir:
    set_up_logging(Log(level="error"))
    return DataDir.find(settings.data_dir)


def _reader(data: DataDir, slot: int, damage: list[str]) -> SlotReader:
    def on_damage(segment: int, start: int, end: int) -> None:
        damage.append(f"slot {slot}, segment {segment:x}, bytes {start:,} to {end:,}")

    return SlotReader(data, slot, Position(), on_damage=on_damage)


def _frames(data: DataDir, reader: SlotReader) -> Iterator[Frame]:
    """Yield all frames that are stored now, but none that are added meanwhile."""
    end, _ = LogEnd(data, reader.slot).refresh()
    for frame in reader.read_to_end():
        if (frame.segment, frame.offset) >= end[:2]:
            break
        yield frame
    reader.close()


def _survey(
    data: DataDir, slot: int, cursors: dict[str, dict[int, Position] | None]
) -> list[object]:
    end, next_number = LogEnd(data, slot).refresh()
    segments = data.segments(slot)
    headers = (first_frame(data, slot, number) for number in segments)
    first = next((header for header in headers if header is not None), None)
    newest = newest_frame(data, slot)
    row: list[object] = [
        slot,
        len(segments),
        slot_bytes(data, slot, end),
        next_number - first.first_number if first else 0,
        _time(first.received_ms) if first else "-",
        _time(newest.header.received_ms) if newest else "-",
    ]
    for positions in cursors.values():
        if positions is None:
            row.append("?")
            continue
        number = number_at(data, slot, positions.get(slot, Position()))
        row.append(0 if number is None else max(0, next_number - number))
    return row


def _check(data: DataDir, slot: int, damage: list[str]) -> list[object]:
    reader = _reader(data, slot, damage)
    frames = events = 0
    for frame in _frames(data, reader):
        frames += 1
        events += frame.events
    return [
        slot,
        frames,
        events,
        reader.missing_events,
        reader.repeated_events,
        reader.newer_segments,
        reader.damaged_bytes,
    ]


def _state_files(data: DataDir) -> list[Path]:
    return sorted((data.path / "dest").glob("*/state.db"))


def _cursors(path: Path) -> dict[int, Position] | None:
    """Return the cursors of a destination, or None if they cannot be read now."""
    from pixelfast.deliver.store import read_low_water  # imported here because only `ls` needs it

    try:
        return read_low_water(path)
    except (sqlite3.Error, ValueError):
        return None


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")[:-6] + "Z"
