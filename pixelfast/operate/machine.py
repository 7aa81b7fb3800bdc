"""Measures the disk and the event loop of the process that serves the admin address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from pixelfast.config import Config
from pixelfast.operate.disk_space import DiskSampler, DiskSpace
from pixelfast.operate.loop_lag import LoopLag
from pixelfast.spool.histograms import HistogramFigures

__all__ = ["Machine"]


class _Server(Protocol):
    config: Config
    data_dir: str
    processes: Any


class Machine:
    """Measures the disk and the event loop from `start` to `stop`."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._sampler = DiskSampler(
            Path(server.data_dir),
            lambda: server.config.spool.min_free,
            self._slot_spaces,
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
    def disk(self) -> DiskSpace | None:
        """The space of the disk; None if it is unknown."""
        return self._sampler.disk

    @property
    def full_in_s(self) -> float | None:
        """Seconds until there is no space for events; None if that is not foreseeable."""
        return self._sampler.full_in_s

    def lag_figures(self) -> HistogramFigures:
        """Return the lag of the event loop."""
        assert self._lag is not None, "it is not started"
        return self._lag.histogram.figures()

    def _slot_spaces(self) -> dict[str, float]:
        """Return the bytes that each slot can still store, as far as they are known."""
        return {
            child.name: child.figures["spool_limit_bytes"] - child.figures["spool_bytes"]
            for child in self._server.processes.collectors
            if "spool_limit_bytes" in child.figures and not child.is_silent
        }
