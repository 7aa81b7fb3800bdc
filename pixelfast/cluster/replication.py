"""The replication of a collector: its own slot, and slots without a collector."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from pixelfast.cluster.acks import AckMode, ReplicatedAcks
from pixelfast.cluster.orphans import Orphans
from pixelfast.cluster.producer import FrameProducer
from pixelfast.cluster.replicator import Replicator
from pixelfast.config import Cluster, Spool
from pixelfast.kafka.statistics import Statistics
from pixelfast.spool import DataDir, SpoolWriter

__all__ = ["Replication"]

_CLOSE_S = 5.0
_CONNECT_S = 1.0
_CONNECT_LOOK_S = 0.01


class Replication:
    """Replicates the slot of a collector, and acknowledges its commits.

    Attributes:
        acks: what the collector's writer reports to.
        max_commit_bytes: the size at which the writer closes a commit.
    """

    def __init__(
        self,
        data: DataDir,
        slot: int,
        settings: Cluster,
        spool: Spool,
        segment_bytes: int,
        on_stored: Callable[[list[Any], int, bool], None],
    ) -> None:
        """Begin to replicate what is in the slot. Blocks for the disk.

        Args:
            data: the data directory.
            slot: the collector's slot.
            settings: the settings of `[cluster]`.
            spool: the settings of the spool.
            segment_bytes: the size of a segment.
            on_stored: see `SpoolWriter`.
        """
        recycled_bytes = segment_bytes if spool.recycle else 0
        self._settings = settings
        self._retries: Counter[str] = Counter()
        self._statistics = Statistics(self._count_retries)
        self._replicator = Replicator(
            data, slot, settings, connect=self._connect, recycled_bytes=recycled_bytes
        )
        self._orphans = Orphans(data, slot, settings)
        loop = asyncio.get_running_loop()
        self.acks = ReplicatedAcks(loop, self._replicator, settings, on_stored, spool.max_wait_s)
        self.max_commit_bytes = self._replicator.max_commit_bytes
        self._replicator.start()

    def _connect(
        self,
        max_message_bytes: int,
        on_fatal: Callable[[str], None],
        on_error: Callable[[str], None],
    ) -> FrameProducer:
        self._statistics.forget()
        read = self._statistics.read
        return FrameProducer(self._settings, max_message_bytes, on_fatal, on_error, read)

    def _count_retries(self, broker: str, retries: int) -> None:
        self._retries[broker] += retries

    async def attach(self, writer: SpoolWriter) -> None:
        """Begin with a writer that has stored nothing yet; wait up to 1 s for the brokers."""
        self.acks.attach(writer)
        self._orphans.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                while not self._replicator.is_connected:  # noqa: ASYNC110 - once in its life
                    await asyncio.sleep(_CONNECT_LOOK_S)
        if not self._replicator.is_connected:
            self.acks.note_disconnected()

    async def close(self) -> None:
        """Wait up to 5 s until everything is replicated, unless the brokers are unavailable."""
        await self._orphans.close()
        is_available = self._replicator.is_connected and self.acks.mode is AckMode.REPLICATING
        await self._replicator.close(_CLOSE_S if is_available else 0.0)
        self.acks.close()

    def stats(self) -> dict[str, Any]:
        """Return the current figures of the replication."""
        replicator, acks = self._replicator, self.acks
        return {
            "is_replicated": replicator.is_complete and not self._orphans.is_behind,
            "are_brokers_available": acks.mode is AckMode.REPLICATING,
            "replication_backlog_s": replicator.backlog_s(),
            "replication_in_flight_bytes": replicator.in_flight_bytes,
            "replication_error": replicator.last_error,
            "cluster_brokers": self._statistics.brokers(),
        }

    def totals(self) -> dict[str, Any]:
        """Return what was counted since the start."""
        return {
            "replicated_frames": self._replicator.replicated_frames + self._orphans.frames,
            "replicated_bytes": self._replicator.replicated_bytes + self._orphans.bytes,
            "replication_failures": self._replicator.failures,
            "replication_timeouts": self.acks.timeouts,
            "acknowledged_commits": dict(self.acks.acknowledged),
            "cluster_retries": dict(self._retries),
        }
