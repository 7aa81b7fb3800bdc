"""The runner of one partition, and its figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from pixelfast.deliver.cluster.home import PartitionHome
from pixelfast.deliver.cluster.log import PartitionLog
from pixelfast.deliver.cluster.store import PartitionState
from pixelfast.deliver.runner import Runner

__all__ = ["PartitionWorker"]


class PartitionWorker:
    """Deliver the events of one partition.

    Attributes:
        log: the log of `runner`.
        state: whether the partition may be committed.
        task: runs `runner`.
    """

    def __init__(
        self,
        partition: int,
        runner: Runner,
        home: PartitionHome,
        log: PartitionLog,
        state: PartitionState,
    ) -> None:
        self.runner = runner
        self.log = log
        self.state = state
        self.task: asyncio.Task[None] | None = None
        self._partition = partition
        self._home = home

    def figures(self) -> dict[str, Any]:
        """Return the figures of the partition, as far as they are committed.

        What retention has deleted before it was read counts as expired.
        """
        own: dict[str, Any] = self.runner.stats({self._partition: self.log.next_number})
        if "stored" not in own:  # it is not open yet, or failed
            own = self._home.committed_figures() | own
        own["expired"] += own["missing"]
        own["missing"] = 0
        totals = Counter(self._home.totals)
        totals.update(self.log.history.passed)
        for name in ("duplicate_frames", "invalid_messages"):
            own[name] = totals[name]
        own["unread"] = self.log.unread_events
        if self.log.held:
            own["state"], own["last_error"] = "held", self.log.held
        return own
