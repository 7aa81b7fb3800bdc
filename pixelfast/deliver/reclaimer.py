"""Reclaiming disk space: segments that were read are removed, the oldest expire if necessary.

Each delivery process expires events of its own destinations. All of them decide from the same
files, so they agree without messages. Only the process that holds the lock of retention removes and
recycles segments; if it ends, the next round of another process takes the lock. It reads from the
disk which events the destinations of other processes need.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from pixelfast.config import Config
from pixelfast.deliver.runner import Runner
from pixelfast.deliver.store import read_low_water
from pixelfast.deliver.stored_needs import StoredNeeds, is_failing
from pixelfast.deliver.timing import DeliveryClock, Timings
from pixelfast.spool import (
    DataDir,
    LogEnd,
    Position,
    remove_drained_slot,
    remove_read_segments,
    segment_bytes_in_force,
)
from pixelfast.spool.datadir import free_bytes, try_lock_file
from pixelfast.spool.format import SEGMENT_HEADER_BYTES, segment_name, spare_name
from pixelfast.spool.highwater import read_high_water

__all__ = ["Reclaimer", "log_ends"]

_FREE_SHARE = 1.1  # of min_free; below it the oldest segments expire
_FIRST = Position()
_FULL_SHARE = 0.9  # of max_bytes; above it the oldest segments expire, so that pixels are accepted


class _Segment(NamedTuple):
    """A segment that has events. Segments sort by age."""

    written_s: float
    slot: int
    number: int
    bytes: int


class Reclaimer:
    """Expire events of an engine's destinations, and remove segments that no destination needs.

    Attributes:
        removed_segments: the number of segments that this process removed since the start.
        end_numbers: by slot, the number of the next event; None until it was determined.
        pending_bytes: by destination, the bytes from its oldest pending event to the end.
    """

    def __init__(
        self,
        config: Config,
        data: DataDir,
        runners: list[Runner],
        workers: int,
        timings: Timings,
        clock: DeliveryClock,
        others: Collection[str] = (),
    ) -> None:
        """Reclaim space for `runners`; `others` are the destinations of other processes."""
        self._timings = timings
        self._clock = clock
        self._slot_bytes = int(config.spool.max_bytes // workers * _FULL_SHARE)
        spool = config.spool
        segment_bytes = segment_bytes_in_force(spool.segment_bytes, spool.max_bytes, workers)
        self._recycled_bytes = segment_bytes if spool.recycle else 0
        self._idle_bytes: dict[int, int] = {}  # by slot: spares, and segments created in advance
        self._kept_lows: dict[str, dict[int, int]] | None = None
        self._others = set(others)
        self._stored = StoredNeeds(data)
        self._lock: int | None = None  # of retention
        self._used_s = float("-inf")
        self._expired_s = float("-inf")
        self.removed_segments = 0
        self.end_numbers: dict[int, int] | None = None
        self.pending_bytes: dict[str, int] = {}
        self._config = config
        self._settings = {each.name: each for each in config.destinations}
        self._data = data
        self._runners = runners
        self._logged_removed: set[str] = set()
        self._ends: dict[int, LogEnd] = {}
        self._end_positions: dict[int, Position] = {}
        self._log = structlog.get_logger("deliver")

    def follow(self, config: Config, others: Collection[str] = ()) -> None:
        """Apply new settings; the engine updates the list of runners itself.

        The needs of a destination without a runner are read from the disk, whether it gets a runner
        later or was removed from the settings. So no segment is removed that a destination needs.
        """
        self._config = config
        self._settings = {each.name: each for each in config.destinations}
        self._others = set(others)

    def close(self) -> None:
        """Let another process remove segments."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def is_due(self) -> bool:
        """Return whether a destination has finished a segment since the last `keep`.

        A process that removes no segments waits for its next regular round, unless it had to expire
        events recently: pixels are rejected until it has expired enough.
        """
        if self._kept_lows is None:
            return True
        is_quiet = self._clock.monotonic_s() - self._expired_s >= self._timings.pressed_s
        if self._lock is None and is_quiet:
            return False
        return self._kept_lows != _segments_of(await self._all_lows())

    async def _all_lows(self) -> dict[str, dict[int, Position]]:
        """Return the first position that each destination needs, as far as it is known."""
        stored = {}
        if self._others:
            stored = await asyncio.to_thread(self._stored.read, self._others)
        return stored | {runner.name: runner.cursors for runner in self._runners}

    async def keep(self) -> None:
        """Run one round. No segment is removed until every runner is open or has failed.

        The needs of a failed runner, and of destinations of other processes, are read from their
        states on the disk.
        """
        lows = await self._all_lows()
        self._kept_lows = _segments_of(lows)
        self.end_numbers = await asyncio.to_thread(self._find_ends)
        segments = await asyncio.to_thread(self._segments)
        self.pending_bytes = await self._pending_bytes(segments)
        if not all(runner.is_open or runner.has_failed for runner in self._runners):
            return
        working = [runner for runner in self._runners if not runner.has_failed]
        for runner in working:
            if until := self._beyond_lag(runner.name, runner.cursors, segments):
                self._expire(runner, until)
        if not self._others <= lows.keys():
            return  # it is not known which events they need
        running = {runner.name: runner.cursors for runner in working}
        # A process that has not started a destination yet will expire its events.
        running |= {name: lows[name] for name in self._others if not self._has_failed(name)}
        sure = [low for name, low in running.items() if self._is_sure(name)]
        if until := self._beyond_space(list(running.values()), sure, segments):
            for runner in working:
                if not self._is_sure(runner.name):
                    self._expire(runner, until)
        if self._lock is None:
            self._lock = try_lock_file(self._data.retention_lock_path)
        if self._lock is not None:
            self.removed_segments += await asyncio.to_thread(self._remove, running, segments)

    def _has_failed(self, name: str) -> bool:
        return is_failing(self._data.destination_dir(name))

    async def _pending_bytes(self, segments: list[_Segment]) -> dict[str, int]:
        lows = {runner.name: runner.cursors for runner in self._runners if runner.cursors}
        unread = self._settings.keys() - lows.keys() - self._others
        if unread:
            lows |= await asyncio.to_thread(self._stored.read, unread)
        return {name: _bytes_after(low, segments) for name, low in lows.items()}

    # --- expiring events ---------------------------------------------------------------------

    def _expire(self, runner: Runner, until: dict[int, Position]) -> None:
        self._expired_s = self._clock.monotonic_s()
        runner.expire(until)

    def _is_sure(self, name: str) -> bool:
        """Whether a destination keeps its events even if the spool becomes full.

        A destination that was removed from the settings does not, because an operator would not
        find out why the spool is full.
        """
        settings = self._settings.get(name)
        is_required = settings is not None and settings.required
        return is_required and self._config.spool.on_full != "drop_oldest"

    def _beyond_lag(
        self, name: str, low: dict[int, Position], segments: list[_Segment]
    ) -> dict[int, Position]:
        """Return where a destination that exceeds max_lag_bytes must continue."""
        settings = self._settings.get(name)
        max_lag_bytes = settings.max_lag_bytes if settings else 0
        if not max_lag_bytes:
            return {}
        pinned = [each for each in segments if each.number >= low.get(each.slot, _FIRST).segment]
        return _oldest(pinned, sum(each.bytes for each in pinned) - max_lag_bytes, segments)

    def _beyond_space(
        self,
        lows: list[dict[int, Position]],
        sure: list[dict[int, Position]],
        segments: list[_Segment],
    ) -> dict[int, Position]:
        """Return where destinations at `lows` must continue so that neither disk nor slots fill up.

        Segments that a destination in `sure` needs are kept, so expiring them for others would free
        no space.
        """
        kept = [each for each in segments if _is_pinned(each, lows)]
        candidates = [each for each in kept if not _is_pinned(each, sure)]
        until = _oldest(candidates, self._missing_bytes(kept, segments), segments)
        for slot in {each.slot for each in kept}:
            own = [each for each in candidates if each.slot == slot]
            too_much = self._taken_bytes(slot, kept) - self._slot_bytes
            for position in _oldest(own, too_much, segments).values():
                until[slot] = max(position, until.get(slot, position))
        return until

    def _taken_bytes(self, slot: int, segments: list[_Segment]) -> int:
        own = sum(each.bytes for each in segments if each.slot == slot)
        return own + self._idle_bytes.get(slot, 0)

    def _missing_bytes(self, kept: list[_Segment], segments: list[_Segment]) -> int:
        """Return how many bytes are missing to `min_free` after unneeded segments are removed."""
        if not self._config.spool.min_free:
            return 0
        going_bytes = sum(each.bytes for each in segments) - sum(each.bytes for each in kept)
        will_be_free = free_bytes(self._data.path) + going_bytes
        return int(self._config.spool.min_free * _FREE_SHARE) - will_be_free

    def _segments(self) -> list[_Segment]:
        """Return all segments that have events, in the order of writing."""
        found = []
        for slot in self._data.slots():
            written_s = 0.0  # a segment may be closed after the next one was started
            idle_bytes = 0
            for number in self._data.spares(slot):
                with contextlib.suppress(FileNotFoundError):
                    idle_bytes += (self._data.slot_dir(slot) / spare_name(number)).stat().st_size
            for number in self._data.segments(slot):
                with contextlib.suppress(FileNotFoundError):
                    there = (self._data.slot_dir(slot) / segment_name(number)).stat()
                    if self._data.has_frame(slot, number):
                        end = self._end_positions.get(slot, _FIRST)
                        size = end.offset if end.segment == number else there.st_size
                        written_s = max(written_s, there.st_mtime)
                        found.append(_Segment(written_s, slot, number, size))
                    else:
                        idle_bytes += there.st_size
            self._idle_bytes[slot] = idle_bytes
        return sorted(found)

    # --- removing segments -------------------------------------------------------------------

    def _remove(self, running: dict[str, dict[int, Position]], segments: list[_Segment]) -> int:
        self._note_use()
        configured = self._settings.keys()
        absent = self._forgotten(running.keys() | configured)
        for name in configured - running.keys():  # it has failed or not started
            try:
                low = read_low_water(self._data.destination_dir(name) / "state.db")
            except (OSError, sqlite3.Error, msgspec.DecodeError):
                return 0  # it is not known which events it needs
            self._move_on(name, low, self._beyond_lag(name, low, segments))
            absent[name] = low
        known = running | absent
        sure = [low for name, low in known.items() if name in running or self._is_sure(name)]
        lows = list(known.values())
        until = self._beyond_space(lows, sure, segments)
        for name, low in absent.items():
            if not self._is_sure(name):
                self._move_on(name, low, until)
        removed = 0
        is_disk_short = self._missing_bytes(segments, segments) > 0
        for slot in self._data.slots():
            earliest = [low.get(slot, Position()) for low in lows]
            # While there is too little space, segments are deleted instead of recycled.
            is_short = is_disk_short or self._taken_bytes(slot, segments) > self._slot_bytes
            removed += remove_read_segments(
                self._data,
                slot,
                [each.segment for each in earliest],
                recycled_bytes=0 if is_short else self._recycled_bytes,
            )
            remove_drained_slot(self._data, slot, earliest)
        return removed

    def _note_use(self) -> None:
        """Record every 10 minutes that these destinations are in use, in case they are removed."""
        if self._clock.monotonic_s() - self._used_s >= self._timings.use_noted_s:
            self._used_s = self._clock.monotonic_s()
            for runner in self._runners:
                (self._data.destination_dir(runner.name) / "lock").touch()

    def _move_on(self, name: str, low: dict[int, Position], until: dict[int, Position]) -> None:
        """Advance a destination without a runner to these positions."""
        passed = {slot for slot, position in until.items() if low.get(slot, _FIRST) < position}
        low.update({slot: until[slot] for slot in passed})
        if passed and name not in self._logged_removed:
            self._logged_removed.add(name)
            self._log.warning("removed_destination_events_deleted", destination=name)

    def _forgotten(self, known: set[str]) -> dict[str, dict[int, Position]]:
        """Return the cursors of destinations that were removed from the settings recently.

        They may return after a mistake in the settings. `lock` was touched when they last ran. All
        events are kept for a destination whose state cannot be read now: another process may be
        writing it, or was killed meanwhile.
        """
        found: dict[str, dict[int, Position]] = {}
        for folder in (self._data.path / "dest").iterdir():
            if folder.name in known or folder.name.startswith("."):
                continue
            if self._clock.wall_s() - _last_used(folder) < self._timings.forgotten_s:
                found[folder.name] = {}
                with contextlib.suppress(OSError, sqlite3.Error, msgspec.DecodeError):
                    found[folder.name] = read_low_water(folder / "state.db")
        return found

    def _find_ends(self) -> dict[int, int]:
        ends = log_ends(self._data, self._ends)
        self._end_positions = {slot: position for slot, (position, _) in ends.items()}
        return {slot: number for slot, (_, number) in ends.items()}


def log_ends(
    data: DataDir, known: dict[int, LogEnd] | None = None
) -> dict[int, tuple[Position, int]]:
    """Return the end of each slot's log and the number of its next event, also of removed slots.

    `known` caches results between calls. Blocks for the disk.
    """
    known = {} if known is None else known
    found = {}
    for slot in data.slots():
        found[slot] = known.setdefault(slot, LogEnd(data, slot)).refresh()
    for path in (data.path / "shards").glob("*.last"):
        slot = int(path.stem)
        record = read_high_water(data, slot)
        found[slot] = max(found.get(slot, (Position(), 0)), (record.end, record.next_number))
    return found


def _bytes_after(low: Mapping[int, Position], segments: list[_Segment]) -> int:
    """Return the number of bytes in these segments after the position in each slot."""
    total = 0
    for each in segments:
        start = low.get(each.slot, _FIRST)
        if each.number >= start.segment:
            read = start.offset if each.number == start.segment else SEGMENT_HEADER_BYTES
            total += max(0, each.bytes - read)
    return total


def _is_pinned(segment: _Segment, lows: list[dict[int, Position]]) -> bool:
    return any(segment.number >= low.get(segment.slot, _FIRST).segment for low in lows)


def _oldest(
    candidates: list[_Segment], too_much: int, segments: list[_Segment]
) -> dict[int, Position]:
    """Return the positions after the oldest candidates with together `too_much` bytes, by slot.

    The newest segment of each slot is kept.
    """
    newest = {each.slot: each.number for each in segments}
    until: dict[int, Position] = {}
    for each in candidates:
        if too_much > 0 and each.number < newest[each.slot]:
            until[each.slot] = Position(each.number + 1)
            too_much -= each.bytes
    return until


def _segments_of(lows: dict[str, dict[int, Position]]) -> dict[str, dict[int, int]]:
    """Return, for each destination, the first segment that it needs of each slot."""
    return {
        name: {slot: position.segment for slot, position in low.items()}
        for name, low in lows.items()
    }


def _last_used(folder: Path) -> float:
    """Return when a destination last ran; minus infinity if it has no files."""
    used_s = float("-inf")
    with contextlib.suppress(OSError):  # it is not a directory
        for each in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process deleted a journal
                used_s = max(used_s, each.stat().st_mtime)
    return used_s
