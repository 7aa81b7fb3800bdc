"""What the supervisor measures beside the figures of its processes: the disk, and its own loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pixelfast.operate.loop_lag import LoopLag
from pixelfast.operate.room import DiskRoom, Sampler
from pixelfast.operate.supervisor import Supervisor
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["Machine"]


class Machine:
    """Measures from `start` to `stop`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._sampler = Sampler(
            Path(supervisor.data_dir),
            lambda: supervisor.config.spool.min_free,
            self._spool_rooms,
        )
        self._lag: LoopLag | None = None
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._lag = LoopLag(asyncio.get_running_loop())
        self._lag.start()
        self._sampling = asyncio.create_task(self._sampler.run())

    def stop(self) -> None:
        if self._lag is not None:
            self._lag.stop()
        if self._sampling is not None:
            self._sampling.cancel()

    @property
    def disk(self) -> DiskRoom | None:
        """The room on the disk; None if it is not known."""
        return self._sampler.disk

    @property
    def full_in_s(self) -> float | None:
        """In how many seconds there is no room for events; None: not foreseeable."""
        return self._sampler.full_in_s

    def lag_figures(self) -> HistogramFigures:
        """The lag of this loop."""
        assert self._lag is not None, "it is not started"
        return self._lag.histogram.figures()

    def _spool_rooms(self) -> dict[str, float]:
        """What each slot may still take, in bytes; of slots that are known."""
        return {
            child.name: child.figures["spool_limit_bytes"] - child.figures["spool_bytes"]
            for child in self._supervisor.collectors
            if "spool_limit_bytes" in child.figures and not child.is_silent
        }
