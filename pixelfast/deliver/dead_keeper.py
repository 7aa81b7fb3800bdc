"""The dead letters of a destination as delivery keeps them: within bounds, and said in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelfast.deliver.batches import BatchLimits
from pixelfast.deliver.bundles import Bundle, DeadLetter
from pixelfast.deliver.dead import DeadLetterLimits, DeadLetters, SourceDeadLetters
from pixelfast.deliver.outcomes import Rejected, Retry
from pixelfast.deliver.timing import DeliveryClock, Timings

__all__ = ["DeadKeeper", "LogThrottle"]

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


class DeadKeeper:
    """Opens a destination's dead letters once there are some. Every method blocks for the disk.

    Attributes:
        size_bytes: what they take on the disk.
        max_bytes: what they may take, as the disk was at the last look.
        by_source: what each source's take.
    """

    def __init__(
        self, path: Path, bounds: DeadLetterLimits, log: Any, timings: Timings, clock: DeliveryClock
    ) -> None:
        self.size_bytes = 0
        self.max_bytes = bounds.max_bytes
        self.by_source: dict[str, SourceDeadLetters] = {}
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._log = log
        self._dead: DeadLetters | None = None
        self._dropped: int | None = None  # ever, as it was seen last
        self._told = LogThrottle(timings, clock)
        self._is_nearly_full = False

    @property
    def has_any(self) -> bool:
        return self._dead is not None or self._path.exists()

    @property
    def database(self) -> DeadLetters:
        """The database, made where it is missing."""
        if self._dead is None:
            self._dead = DeadLetters(self._path, self._clock, self._bounds.max_bytes)
            self._measure()
        return self._dead

    def write(
        self,
        added: list[Bundle],
        removed: list[int],
        rejected_again: dict[int, Rejected | Retry],
    ) -> None:
        """Keep new letters, let go of those that have arrived, note those that have not."""
        if added:
            self.database.add(added, self._bounds)
        if removed:
            self.database.remove(removed)
        for each, outcome in rejected_again.items():
            self.database.reject_again(each, outcome.status, outcome.reason, outcome.response)
        if added or removed or rejected_again:
            self._measure()

    def tend(self, limits: BatchLimits | None, *, is_due: bool) -> list[DeadLetter]:
        """Look after them; returns one batch of those that somebody wants to be sent again.

        `is_due`: drop those that are too old or too many by now.
        """
        if is_due:
            self.database.keep_within(self._bounds)
        dead = self.database
        self._measure()  # the commands change them, too
        return dead.take_for_replay(limits.max_events, limits.max_bytes) if limits else []

    def close(self) -> None:
        if self._dead is not None:
            self._dead.close()

    def _measure(self) -> None:
        """Note what they take, and say so where that is nearly too much."""
        assert self._dead is not None
        self.size_bytes, self.by_source = self._dead.size_bytes(), self._dead.by_source()
        self.max_bytes = self._bounds.current_max_bytes(self._dead.file_bytes())
        dropped = sum(each.dropped for each in self.by_source.values())
        more = 0 if self._dropped is None else dropped - self._dropped
        self._dropped = dropped
        if events := self._told.add(more):
            self._log.warning("dead_letters_dropped", events=events, bytes=self.size_bytes)
        if self.size_bytes < _WARNING_SHARE * self.max_bytes:
            self._is_nearly_full = False
        elif not self._is_nearly_full:
            self._is_nearly_full = True
            self._log.warning(
                "dead_letters_nearly_full",
                bytes=self.size_bytes,
                max_dead_bytes=self._bounds.max_bytes,
                max_bytes=self.max_bytes,
                on_dead_full=self._bounds.on_full,
            )
