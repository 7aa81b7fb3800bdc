"""Whether rejected events are to blame for it, or their destination is."""

from __future__ import annotations

from pixelfast.deliver.timing import Timings

__all__ = ["Rejections"]

_MIN_EVENTS = 10
_MIN_BATCHES = 2
_REMEMBERED_BATCHES = 4096
_REMEMBERED_EVENTS = 2000
_BEST_GROUP = 0.69  # bad events expected in a group whose test tells most: ln 2
_MAX_PARTS = 512


class Rejections:
    """Tells bad events, which become dead letters, from a destination that rejects everything.

    Write keys are public, so any share of the events may be bad. An event that was rejected by
    itself is bad for sure once its destination has accepted something around the same time; until
    then it is kept. Nothing but rejections means that the destination is wrong: `must_hold`.

    >>> rejections = Rejections(Timings())
    >>> for batch in ("a", "b"):
    ...     rejections.reject(batch, events=5, whole=5, now_s=1.0)
    >>> rejections.must_hold(now_s=2.0), rejections.must_hold(now_s=3.0)
    (False, True)
    >>> rejections.accept("c", events=1, now_s=3.0)
    >>> rejections.must_hold(now_s=9.0)
    False
    """

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self.accepted_s = float("-inf")  # when something was accepted last
        self._accepted: dict[str, None] = {}  # batches of which something was, the newest last
        self._rejected: dict[str, int] = {}  # of each batch, in a row, while nothing was accepted
        self._wholly_rejected: set[str] = set()
        self._first_s = self._last_s = 0.0  # when the first and the last of those were
        self._good = self._bad = 0  # events of late

    def accept(self, batch: str, events: int, now_s: float) -> None:
        """Count events that were accepted of a batch, by its id or that of the whole."""
        self.accepted_s = now_s
        self._rejected.clear()
        self._wholly_rejected.clear()
        self._accepted.pop(batch, None)
        self._accepted[batch] = None
        if len(self._accepted) > _REMEMBERED_BATCHES:
            del self._accepted[next(iter(self._accepted))]
        self._count(events, 0)

    def reject(self, batch: str, events: int, whole: int, now_s: float) -> None:
        """Count events that were rejected by themselves, of a batch that has `whole` events."""
        self._first_s = self._first_s if self._rejected else now_s
        self._last_s = now_s
        self._rejected[batch] = self._rejected.get(batch, 0) + events
        if self._rejected[batch] >= whole:
            self._wholly_rejected.add(batch)
        self._count(0, events)

    def blame(self, events: int) -> None:
        """Count events that their destination fails at."""
        self._count(0, events)

    def are_bad(self, batch: str, began_s: float) -> bool:
        """Whether events of a batch that are rejected by a request that `began_s` are to blame."""
        if self.accepted_s >= began_s:
            return True
        return batch in self._accepted and sum(self._rejected.values()) < _MIN_EVENTS

    def must_hold(self, now_s: float) -> bool:
        """Whether nothing at all is accepted: ten events, two whole batches, for two seconds.

        The time is for a stream of bad events with a good one here and there, which must go on.
        """
        return self._looks_wrong() and now_s - self._first_s >= self._timings.all_rejected_s

    def is_quiet(self, now_s: float) -> bool:
        """Whether too few were rejected to blame the destination, and no more came for a while."""
        return not self._looks_wrong() and now_s - self._last_s >= self._timings.quiet_s

    def _looks_wrong(self) -> bool:
        return (
            len(self._wholly_rejected) >= _MIN_BATCHES
            and sum(self._rejected.values()) >= _MIN_EVENTS
        )

    def part_events(self, events: int) -> int:
        """How large the parts of a rejected batch are to be, to find its bad events soon.

        Halves while few events are bad; else groups that have a bad event every second time, so
        that each response tells as much as it can.
        """
        half = (events + 1) // 2
        share = self._bad / (self._good + self._bad) if self._bad else 0.0
        group = int(_BEST_GROUP / share) if share else half
        return min(half, max(1, group, -(-events // _MAX_PARTS)))

    def _count(self, good: int, bad: int) -> None:
        self._good += good
        self._bad += bad
        if self._good + self._bad > _REMEMBERED_EVENTS:
            self._good //= 2
            self._bad //= 2
