"""Measures disk space, and predicts when the spool will be full."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["DiskSampler", "DiskSpace", "FullForecast", "measure_disk"]

_WINDOW_S = 300.0  # the forecast uses the samples of this time
_MIN_S = 60.0  # minimum time between samples of a forecast
_SAMPLE_S = 5.0
_STALE_S = 30.0  # older measurements are not used


class DiskSpace(NamedTuple):
    """The space of a file system for users other than root, in bytes."""

    free_bytes: int
    size_bytes: int


def measure_disk(path: Path) -> DiskSpace:
    """Measure the file system of a path. The call blocks on the disk.

    Raises:
        OSError: it cannot be measured.
    """
    found = os.statvfs(path)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


class FullForecast:
    """Predicts when one of several spaces is used up, at the rate of the last five minutes.

    >>> forecast = FullForecast()
    >>> for minute in range(3):
    ...     forecast.add(minute * 60.0, {"slot 0": 1000 - 60 * minute, "slot 1": 500})
    >>> forecast.seconds
    880.0
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque()

    def add(self, now_s: float, spaces: Mapping[str, float]) -> None:
        """Add a sample: the free bytes of each space that is known."""
        self._samples.append((now_s, spaces))
        while now_s - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()

    @property
    def seconds(self) -> float | None:
        """Seconds until the first space is used up; None if no space decreases."""
        if not self._samples:
            return None
        now_s, present = self._samples[-1]
        if any(left <= 0 for left in present.values()):
            return 0.0
        found = []
        for name, left in present.items():
            then_s, before = next(
                (at_s, spaces[name]) for at_s, spaces in self._samples if name in spaces
            )
            if now_s - then_s >= _MIN_S and left < before:
                found.append(left * (now_s - then_s) / (before - left))
        return min(found, default=None)


class DiskSampler:
    """Measures the disk every few seconds in a thread, so that no scrape waits for the disk.

    `slot_spaces` returns the bytes that each slot can still store, as far as they are known.
    """

    def __init__(
        self,
        path: Path,
        min_free: Callable[[], int],
        slot_spaces: Callable[[], Mapping[str, float]],
        *,
        clock: Callable[[], float] = time.monotonic,
        measure: Callable[[Path], DiskSpace] = measure_disk,
    ) -> None:
        self._path = path
        self._min_free = min_free
        self._slot_spaces = slot_spaces
        self._clock = clock
        self._measure = measure
        self._disk: DiskSpace | None = None
        self._measured_s = self._looked_s = float("-inf")
        self._forecast = FullForecast()

    @property
    def disk(self) -> DiskSpace | None:
        """The space of the disk; None if there is no recent measurement."""
        return self._disk if self._clock() - self._measured_s < _STALE_S else None

    @property
    def full_in_s(self) -> float | None:
        """Seconds until there is no space for events; None if that is not foreseeable."""
        return self._forecast.seconds if self._clock() - self._looked_s < _STALE_S else None

    async def run(self) -> None:
        """Measure until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_SAMPLE_S)

    async def look(self) -> None:
        spaces = dict(self._slot_spaces())
        try:
            self._disk = await asyncio.to_thread(self._measure, self._path)
        except OSError:
            self._disk = None
        else:
            self._measured_s = self._clock()
            spaces["disk"] = self._disk.free_bytes - self._min_free()
        self._looked_s = self._clock()
        self._forecast.add(self._looked_s, spaces)
