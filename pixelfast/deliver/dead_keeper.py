"""Keeping the dead letters of a destination within their limits, and logging changes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.bundles import Bundle, DeadLetter
from pixelfast.deliver.dead import DeadLetterLimits, DeadLetters, SourceDeadLetters
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["DeadKeeper", "LogThrottle", "NearlyFullLog"]

_WARNING_SHARE = 0.8


class LogThrottle:
    """Count events of one kind, to log them once a minute rather than each time."""

    def __init__(self, timings: Timings, clock: DeliveryClock) -> None:
        self._again_s = timings.log_again_s
        self._clock = clock
        self._events = 0
        self._told_s = float("-inf")

    def add(self, events: int) -> int:
        """Count some more; return how many are to be logged now, or 0."""
        self._events += events
        now_s = self._clock.monotonic_s()
        if not events or now_s - self._told_s < self._again_s:
            return 0
        told, self._events, self._told_s = self._events, 0, now_s
        return told


class NearlyFullLog:
    """Log that dead letters have reached 80 % of their limit, once until they are below it."""

    def __init__(self, limits: DeadLetterLimits, log: Any) -> None:
        self._limits = limits
        self._log = log
        self._is_nearly_full = False

    def note(self, size_bytes: int, max_bytes: int) -> None:
        """Note the current size of the dead letters, and its current limit."""
        was_nearly_full = self._is_nearly_full
        self._is_nearly_full = size_bytes >= _WARNING_SHARE * max_bytes
        if self._is_nearly_full and not was_nearly_full:
            self._log.warning(
                "dead_letters_nearly_full",
                bytes=size_bytes,
                max_dead_bytes=self._limits.max_bytes,
                max_bytes=max_bytes,
                on_dead_full=self._limits.on_full,
            )


class DeadKeeper:
    """Maintain a destination's dead letters; the database is created with the first one.

    Every method blocks for the disk.

    Attributes:
        size_bytes: the disk space that dead letters use.
        max_bytes: the current limit, which also depends on the free disk space.
        by_source: the numbers and sizes for each source.
    """

    def __init__(
        self,
        path: Path,
        dead_limits: DeadLetterLimits,
        log: Any,
        timings: Timings,
        clock: DeliveryClock,
    ) -> None:
        self.size_bytes = 0
        self.max_bytes = dead_limits.max_bytes
        self.by_source: dict[str, SourceDeadLetters] = {}
        self._path = path
        self._dead_limits = dead_limits
        self._clock = clock
        self._log = log
        self._dead: DeadLetters | None = None
        self._dropped: int | None = None  # the total at the last measurement
        self._told = LogThrottle(timings, clock)
        self._nearly_full = NearlyFullLog(dead_limits, log)

    @property
    def has_any(self) -> bool:
        return self._dead is not None or self._path.exists()

    @property
    def database(self) -> DeadLetters:
        """The database, which is created if it does not exist."""
        if self._dead is None:
            self._dead = DeadLetters(self._path, self._clock, self._dead_limits.max_bytes)
            self._measure()
        return self._dead

    def write(
        self,
        added: list[Bundle],
        removed: list[int],
        rejected_again: dict[int, Rejected | Retry],
    ) -> None:
        """Add dead letters, remove delivered ones, and record those that failed again."""
        if added:
            self.database.add(added, self._dead_limits)
        if removed or rejected_again:
            self.database.end_replay(removed, rejected_again)
        if added or removed or rejected_again:
            self._measure()

    def tend(self, limits: BatchLimits | None, *, is_due: bool) -> list[DeadLetter]:
        """Return one batch of dead letters that an operator wants to replay.

        If `is_due`, first drop those that exceed the limits of age and size.
        """
        if is_due:
            self.database.keep_within(self._dead_limits)
        dead = self.database
        self._measure()  # `pixelfast dead` also changes them
        return dead.take_for_replay(limits.max_events, limits.max_bytes) if limits else []

    def resume(self, planned: Iterable[list[int]]) -> None:
        """Continue after a restart; `planned` are the dead letters of each planned replay."""
        if self.has_any:
            dead = self.database
            dead.give_back(chain.from_iterable(filter(dead.are_replayed, planned)))

    def read_replayed(self, ids: list[int]) -> list[DeadLetter] | None:
        """Return dead letters that are being replayed, or None if that has ended."""
        return self.database.read(ids) if self.database.are_replayed(ids) else None

    def existing(self, ids: list[int]) -> int:
        """Return how many of these dead letters exist."""
        return self.database.existing(ids)

    def close(self) -> None:
        if self._dead is not None:
            self._dead.close()

    def _measure(self) -> None:
        """Measure the dead letters, and log if they were dropped or are nearly at the limit."""
        assert self._dead is not None
        sizes = self._dead.sizes()
        self.size_bytes, self.by_source = sizes.used_bytes, self._dead.by_source()
        self.max_bytes = self._dead_limits.current_max_bytes(sizes.file_bytes)
        dropped = sum(each.dropped for each in self.by_source.values())
        more = 0 if self._dropped is None else dropped - self._dropped
        self._dropped = dropped
        if events := self._told.add(more):
            self._log.warning("dead_letters_dropped", events=events, bytes=self.size_bytes)
        self._nearly_full.note(self.size_bytes, self.max_bytes)
