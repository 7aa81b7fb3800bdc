"""When the responses of a commit are sent: after the brokers' reports, or after the local sync.

    from          to            when
    REPLICATING   UNAVAILABLE   an event has waited for the brokers for `max_replication_wait_s`
    UNAVAILABLE   REPLICATING   the oldest event without a report has been younger than 0.25 s for
                                5 s; or, with `when_unavailable = "reject"`, there is none

While replicating, the local spool is synced after 1 s or 1 MiB, and a commit is acknowledged when
all of its frames are reported. While the brokers are unavailable, `when_unavailable` decides:

spool    Each commit is synced, and acknowledged when it is reported or on the local disk. It counts
         as on the disk only if every segment with frames that are not replicated is synced, too.
reject   The waiting commits are reported as not stored, and new events are rejected.

Commits are acknowledged in the order of the log. An event that is not acknowledged in time is
reported as not stored, but it is in the log and will be replicated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import structlog

from pixelfast.cluster.pace import CommitPace
from pixelfast.cluster.replicator import Replicator
from pixelfast.config import Cluster
from pixelfast.spool import Position, SpoolWriter
from pixelfast.spool.format import SegmentId

__all__ = ["AckMode", "ReplicatedAcks"]

_LOOK_S = 0.05
_CALM_S = 5.0
_CALM_BACKLOG_S = 0.25


class AckMode(Enum):
    """Whether commits are acknowledged by the brokers, or as `when_unavailable` determines."""

    REPLICATING = "replicating"
    UNAVAILABLE = "unavailable"


class _Waiting(NamedTuple):
    """A commit that has not been acknowledged yet."""

    end: Position
    waiters: list[Any]
    first_ticket: int
    since_s: float


class ReplicatedAcks:
    """Acknowledges the commits of one writer.

    Attributes:
        mode: the current mode.
        acknowledged: how many commits were acknowledged because they were replicated, and how many
            because they were on the local disk.
        timeouts: how many commits were reported as not stored.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        replicator: Replicator,
        settings: Cluster,
        on_stored: Callable[[list[Any], int, bool], None],
        max_wait_s: float,
        *,
        calm_s: float = _CALM_S,
        pace: CommitPace | None = None,
    ) -> None:
        """Acknowledge what `replicator` replicates.

        Args:
            loop: the event loop of the writer.
            replicator: the replicator of the writer's slot.
            settings: the settings of `[cluster]`.
            on_stored: see `SpoolWriter`.
            max_wait_s: time after which a waiting event counts as not stored.
            calm_s: how long the brokers must keep up before they count as available.
            pace: the time between commits while replicating.
        """
        self.mode = AckMode.REPLICATING
        self.acknowledged = {"replicated": 0, "spooled": 0}
        self.timeouts = 0
        self._loop = loop
        self._replicator = replicator
        self._calm_s = calm_s
        self._rejects = settings.when_unavailable == "reject"
        self._replication_wait_s = settings.max_replication_wait_s
        self._max_wait_s = max(max_wait_s, 2 * settings.max_replication_wait_s)
        self._on_stored = on_stored
        self._writer: SpoolWriter | None = None
        self._waiting: deque[_Waiting] = deque()
        self._written = Position()  # the end of the last commit
        self._synced = Position()  # the current segment, up to here
        self._unsynced: set[int] = set()  # segments that were left and are not synced yet
        self._calm_since_s: float | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._pace = pace or CommitPace(loop)
        self._log = structlog.get_logger("cluster").bind(slot=replicator.slot)
        replicator.on_progress = self._release

    def attach(self, writer: SpoolWriter) -> None:
        """Begin with a writer that has stored nothing yet."""
        self._writer = writer
        self._look()

    def note_disconnected(self) -> None:
        """Note that no broker has responded since the start.

        With "reject", the collector is not ready then, before an event has waited for them.
        """
        if self._rejects and self.mode is AckMode.REPLICATING:
            self._become_unavailable()

    def close(self) -> None:
        """Stop the timers; the mode no longer changes."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._pace.cancel()

    def delays_commit(self) -> bool:
        """Return whether the next commit must wait; the writer is resumed when it may start."""
        if self.mode is not AckMode.REPLICATING:
            return False
        return self._pace.delays(self._resume)

    # --- what the writer reports -------------------------------------------------------------

    def on_written(
        self,
        segment: SegmentId,
        offset: int,
        image: bytes,
        waiters: list[Any],
        first_ticket: int,
        since_s: float,
    ) -> None:
        self._written = Position(segment.number, offset + len(image))
        self._pace.note_commit()
        if waiters:
            self._waiting.append(_Waiting(self._written, waiters, first_ticket, since_s))
        self._replicator.note_commit(segment, offset, image)

    def on_synced(self, segment: int, offset: int) -> None:
        self._synced = max(self._synced, Position(segment, offset))
        if self.mode is AckMode.UNAVAILABLE:
            self._release()

    def on_left(self, segment: int, is_synced: asyncio.Future[bool]) -> None:
        if self._written.segment != segment or self._written <= self._synced:
            return  # all of its commits are synced, whatever happens to it now
        self._unsynced.add(segment)
        is_synced.add_done_callback(lambda done: self._on_left_synced(segment, done))

    def _on_left_synced(self, segment: int, done: asyncio.Future[bool]) -> None:
        if done.cancelled() or done.exception() is not None or not done.result():
            return  # its frames count only once they are replicated
        self._unsynced.discard(segment)
        # No frame was added after it was left.
        self._synced = max(self._synced, Position(segment + 1, 0))
        if self.mode is AckMode.UNAVAILABLE:
            self._release()

    # --- acknowledging -----------------------------------------------------------------------

    def _release(self) -> None:
        position = self._replicator.position
        waiting = self._waiting
        while waiting and waiting[0].end <= position:
            self._acknowledge("replicated")
        if self.mode is AckMode.UNAVAILABLE and not self._rejects:
            self._unsynced = {each for each in self._unsynced if each >= position.segment}
            while waiting and self._is_on_disk(waiting[0].end):
                self._acknowledge("spooled")
        self._resume()

    def _resume(self) -> None:
        if self._writer is not None:
            self._writer.resume()

    def _is_on_disk(self, end: Position) -> bool:
        is_whole = not self._unsynced or min(self._unsynced) > end.segment
        return is_whole and end <= self._synced

    def _acknowledge(self, by: str) -> None:
        commit = self._waiting.popleft()
        self.acknowledged[by] += 1
        self._on_stored(commit.waiters, commit.first_ticket, True)

    def _reject_waiting(self, latest_s: float) -> None:
        """Report commits that came before `latest_s` as not stored."""
        while self._waiting and self._waiting[0].since_s < latest_s:
            commit = self._waiting.popleft()
            self.timeouts += 1
            self._on_stored(commit.waiters, commit.first_ticket, False)

    # --- modes -------------------------------------------------------------------------------

    def _look(self) -> None:
        self._looking = self._loop.call_later(_LOOK_S, self._look)
        now_s = self._loop.time()
        if self.mode is AckMode.REPLICATING:
            if self._waiting and now_s - self._waiting[0].since_s >= self._replication_wait_s:
                self._become_unavailable()
        elif self._is_calm(now_s):
            self._become_available()
        self._reject_waiting(now_s - self._max_wait_s)
        self._resume()

    def _become_unavailable(self) -> None:
        assert self._writer is not None
        self.mode = AckMode.UNAVAILABLE
        self._calm_since_s = None
        self._log.warning("brokers_unavailable", error=self._replicator.last_error or None)
        if self._rejects:
            self._writer.set_replicated(False)
            self._reject_waiting(float("inf"))
        else:
            self._writer.sync_each(True)
            self._release()

    def _is_calm(self, now_s: float) -> bool:
        if self._rejects:
            return self._replicator.is_complete
        if self._replicator.backlog_s() >= _CALM_BACKLOG_S:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        return self._calm_since_s is not None and now_s - self._calm_since_s >= self._calm_s

    def _become_available(self) -> None:
        assert self._writer is not None
        self.mode = AckMode.REPLICATING
        self._log.info("brokers_available")
        self._writer.set_replicated(True)
        self._writer.sync_each(False)
