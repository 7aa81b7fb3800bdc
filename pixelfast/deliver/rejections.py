"""Whether events are rejected because they are bad, or because their destination is wrong."""

from __future__ import annotations

from pixelfast.deliver.timing import Timings

__all__ = ["Rejections"]

_MIN_EVENTS = 10
_MIN_BATCHES = 2
_REMEMBERED_BATCHES = 4096
_REMEMBERED_EVENTS = 2000
_BEST_GROUP = 0.69  # expected bad events in a group whose test is most informative: ln 2
_MAX_PARTS = 512


class Rejections:
    """Distinguish bad events, which become dead letters, from a destination that rejects them all.

    Write keys are public, so any share of the events may be bad. An event that was rejected on its
    own is certainly bad if its destination accepted another event at about the same time; until
    then it is kept. If nothing is accepted at all, the destination must be held.

    Attributes:
        accepted_s: when an event was last accepted, by the monotonic clock.

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
        self.accepted_s = float("-inf")
        self._accepted: dict[str, None] = {}  # batches with an accepted event, the newest last
        self._rejected: dict[str, int] = {}  # events of each batch since the last acceptance
        self._wholly_rejected: set[str] = set()
        self._first_s = self._last_s = 0.0  # the first and last of these rejections
        self._good = self._bad = 0  # recent events

    def accept(self, batch: str, events: int, now_s: float) -> None:
        """Count accepted events of a batch; a part of a batch has the id of the whole."""
        self.accepted_s = now_s
        self._rejected.clear()
        self._wholly_rejected.clear()
        self._accepted.pop(batch, None)
        self._accepted[batch] = None
        if len(self._accepted) > _REMEMBERED_BATCHES:
            del self._accepted[next(iter(self._accepted))]
        self._count(events, 0)

    def reject(self, batch: str, events: int, whole: int, now_s: float) -> None:
        """Count events that were rejected on their own, from a batch of `whole` events."""
        self._first_s = self._first_s if self._rejected else now_s
        self._last_s = now_s
        self._rejected[batch] = self._rejected.get(batch, 0) + events
        if self._rejected[batch] >= whole:
            self._wholly_rejected.add(batch)
        self._count(0, events)

    def blame(self, events: int) -> None:
        """Count events that make their destination fail."""
        self._count(0, events)

    def are_bad(self, batch: str, began_s: float) -> bool:
        """Whether events of a batch, rejected by a request that `began_s`, are certainly bad."""
        if self.accepted_s >= began_s:
            return True
        return batch in self._accepted and sum(self._rejected.values()) < _MIN_EVENTS

    def must_hold(self, now_s: float) -> bool:
        """Whether nothing is accepted: ten events and two whole batches rejected in two seconds.

        The time allows for a stream of bad events with few good ones, which must continue.
        """
        return self._looks_wrong() and now_s - self._first_s >= self._timings.all_rejected_s

    def is_quiet(self, now_s: float) -> bool:
        """Whether there are too few rejections to blame the destination, and no recent ones."""
        return not self._looks_wrong() and now_s - self._last_s >= self._timings.quiet_s

    def _looks_wrong(self) -> bool:
        return (
            len(self._wholly_rejected) >= _MIN_BATCHES
            and sum(self._rejected.values()) >= _MIN_EVENTS
        )

    def part_events(self, events: int) -> int:
        """Return the size of the parts into which to divide a rejected batch of `events` events.

        Parts are halves while few events are bad. Otherwise about every second part has a bad
        event, so that each response is as informative as possible.
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
