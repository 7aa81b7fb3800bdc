"""Measures the lag of an event loop: how late it runs timers, and thus everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pixelfast.spool.histograms import DurationHistogram

__all__ = ["LoopLag"]

_INTERVAL_S = 0.25


class LoopLag:
    """Measures the lag of an event loop four times a second, from `start` to `stop`.

    Attributes:
        histogram: the measured lags.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.histogram = DurationHistogram()
        self._loop = loop
        self._clock = clock
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due_s = self._clock() + _INTERVAL_S
        self._timer = self._loop.call_later(_INTERVAL_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.histogram.add(max(0.0, self._clock() - self._due_s))
        self.start()
