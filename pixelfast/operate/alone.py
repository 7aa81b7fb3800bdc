"""A process without a supervisor: `pixelfast collect` and `pixelfast deliver`."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from pixelfast.config import Config, Redactor
from pixelfast.operate.control import Orders
from pixelfast.operate.logging import change_logging
from pixelfast.operate.reload import ReloadState, SettingsFile, log_reloaded, read_changes
from pixelfast.operate.signals import ignore_other_signals, release_signals
from pixelfast.operate.totals import Totals

__all__ = ["LoneProcess", "LoneService"]

_FIGURES_S = 0.1  # figures that are this old are measured again


class LoneService(Protocol):
    """The work of a process."""

    async def run(self, stop: asyncio.Event, on_started: Callable[[], None]) -> None:
        """Work until `stop` is set; call `on_started` once the work has begun."""

    async def reload(self, config: Config) -> None: ...

    def stats(self) -> dict[str, Any]: ...


class _Own:
    """The process itself, as the admin address shows a process."""

    starts = 1
    is_silent = False
    silent_s = 0.0

    def __init__(self, orders: Orders, service: LoneService) -> None:
        self.orders = orders
        self.name = orders.name
        self.is_started = False
        self._service = service
        self._figures: dict[str, Any] = {}
        self._totals = Totals()
        self._measured_s = float("-inf")

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def reported_at_s(self) -> float:
        return time.time()

    @property
    def is_ready(self) -> bool:
        return bool(self.figures.get("is_ready"))

    @property
    def figures(self) -> dict[str, Any]:
        self._measure()
        return self._figures

    @property
    def totals(self) -> Totals:
        self._measure()
        return self._totals

    def _measure(self) -> None:
        """Measure the figures, once for all parts of a response."""
        now_s = time.monotonic()
        if self.is_started and now_s - self._measured_s > _FIGURES_S:
            self._measured_s = now_s
            self._figures = self._service.stats()
            self._totals.follow(self._figures.get("totals", {}))


class _Processes:
    """The only process, by what it does."""

    def __init__(self, own: _Own) -> None:
        self.children = [own]
        is_collector = own.orders.role == "collector"
        self.collectors = [own] if is_collector else []
        self.deliveries = [] if is_collector else [own]


class LoneProcess:
    """Runs a service until SIGTERM or SIGINT, and reloads its settings on SIGHUP.

    Attributes:
        name: the name of the process in metrics.
        processes: the process itself, for the admin address.
    """

    def __init__(
        self,
        orders: Orders,
        service: LoneService,
        settings_file: SettingsFile,
        adopt: Callable[[Config], Config],
    ) -> None:
        """Prepare a process.

        Args:
            orders: its role, settings and data directory.
            service: its work.
            settings_file: what a reload reads.
            adopt: prepares the data directory for settings before they are applied, and returns
                them with the parts that are not in the file.
        """
        self.name = orders.name
        self.config = orders.config
        self.data_dir = orders.data_dir
        self.reload_state = ReloadState()
        self._service = service
        self._settings_file = settings_file
        self._adopt = adopt
        self._own = _Own(orders, service)
        self.processes = _Processes(self._own)
        self._started_s = time.monotonic()
        self._stop = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._log = structlog.get_logger("process")

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether it can store events, or deliver to all destinations, and is not stopping."""
        return not self.is_stopping and self._own.is_ready

    @property
    def uptime_s(self) -> float:
        """Seconds since the start, independent of the wall clock."""
        return time.monotonic() - self._started_s

    async def run(self, on_started: Callable[[], None]) -> None:
        """Run until a signal; call `on_started` once the work has begun."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        ignore_other_signals("process", (signal.SIGUSR1, signal.SIGUSR2))
        release_signals()
        reloading: list[asyncio.Task[None]] = []

        def on_service_started() -> None:
            self._own.is_started = True
            reloading.append(asyncio.create_task(self._reload_when_wanted()))
            on_started()

        try:
            await self._service.run(self._stop, on_service_started)
        finally:
            for task in reloading:
                task.cancel()

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                problems = await self._reload()
            except Exception:  # noqa: BLE001 - the process continues
                self._log.exception("reload_failed")
                problems = ["the reload failed because of an unexpected error; see the log"]
            self.reload_state.conclude(problems)

    async def _reload(self) -> list[str]:
        """Reload once; return the problems."""
        config, kept, problems = await read_changes(
            self._settings_file, self._adopt, self.config, self._log, can_upgrade=False
        )
        if config is None:
            return problems
        self.reload_state.needs_restart = kept
        await self._service.reload(config)
        self.config = config
        names = [each.name for each in config.destinations]
        orders = self._own.orders
        self._own.orders = msgspec.structs.replace(orders, config=config, destinations=names)
        change_logging(config.log, Redactor(config))
        log_reloaded(self._log, config, kept)
        return []
