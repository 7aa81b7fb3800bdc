"""The main function of a collector process and of a delivery process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop

from pixelfast.config import Redactor
from pixelfast.operate.control import Drain, Leave, Orders, Reload, Reporter, receive_orders
from pixelfast.operate.logging import change_logging, set_up_logging
from pixelfast.operate.loop_lag import LoopLag
from pixelfast.operate.signals import OTHER_SIGNALS
from pixelfast.spool import DataDir

__all__ = ["main"]

_REPORT_S = 1.0


class _Service(Protocol):
    """The work of a process.

    Attributes:
        on_end: called if the work ends by itself, which it should not; `stop` then raises why.
    """

    on_end: Callable[[], None]

    async def start(self) -> None: ...

    def leave(self) -> None: ...

    async def reload(self, message: Reload) -> None: ...

    async def stop(self, *, is_handed_over: bool) -> None: ...

    def stats(self) -> dict[str, Any]: ...


def main() -> None:
    """Run a process of the supervisor. The only argument is the descriptor of its connection."""
    for number in (signal.SIGINT, *OTHER_SIGNALS):  # the supervisor handles them
        signal.signal(number, signal.SIG_IGN)
    line = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(line.fileno(), False)
    try:
        orders = receive_orders(line)
    except EOFError:
        return
    set_up_logging(orders.config.log, orders.name, Redactor(orders.config))
    Path("/proc/self/comm").write_text(f"pf-{orders.name}")  # shown by ps and top
    if orders.role == "delivery":
        # It gets the same share of a core, but does not interrupt a collector when it wakes up.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        uvloop.run(_start(orders, line))
    except Exception:  # noqa: BLE001 - logged before the process ends
        structlog.get_logger("process").exception("process_failed")
        sys.exit(1)


def _do_nothing() -> None:
    """Do nothing."""


class _CollectorService:
    """Runs a collector."""

    on_end: Callable[[], None] = staticmethod(_do_nothing)

    def __init__(self, orders: Orders) -> None:
        from pixelfast.collect import Worker
        from pixelfast.collect.budgets import RateBudgets

        data = DataDir.open(orders.data_dir)
        os.set_inheritable(orders.rates_fd, False)
        budgets = RateBudgets.open(orders.rates_fd, orders.rate_places)
        self._worker = Worker(orders.config, data, orders.slot, orders.workers, budgets=budgets)
        self._budgets = RateBudgets
        self._rates_fd = orders.rates_fd
        self._listen_fds = orders.listen_fds
        self._tls_fds = orders.tls_fds

    async def start(self) -> None:
        plain: list[socket.socket] = []
        tls: list[socket.socket] = []
        for fd in self._listen_fds:
            os.set_inheritable(fd, False)
            (tls if fd in self._tls_fds else plain).append(socket.socket(fileno=fd))
        await self._worker.start(plain, tls)

    def leave(self) -> None:
        self._worker.fail_health_checks()

    async def reload(self, message: Reload) -> None:
        budgets = self._budgets.open(self._rates_fd, message.rate_places)
        self._worker.reload(message.config, budgets)

    async def stop(self, *, is_handed_over: bool) -> None:
        await self._worker.stop(is_handed_over=is_handed_over)

    def stats(self) -> dict[str, Any]:
        return self._worker.stats()


class _DeliveryService:
    """Runs the delivery to some of the destinations."""

    def __init__(self, orders: Orders) -> None:
        from pixelfast.deliver import make_engine

        data = DataDir.open(orders.data_dir)
        self._engine = make_engine(orders.config, data, orders.workers, orders.destinations)
        self._running: asyncio.Task[None] | None = None
        self.on_end: Callable[[], None] = _do_nothing

    async def start(self) -> None:
        self._running = asyncio.create_task(self._engine.run())
        self._running.add_done_callback(lambda _: self.on_end())

    def leave(self) -> None:
        """Continue, because collectors still store events."""

    async def reload(self, message: Reload) -> None:
        await self._engine.reload(message.config, message.destinations)

    async def stop(self, *, is_handed_over: bool) -> None:
        del is_handed_over  # the next process waits for the locks
        assert self._running is not None
        self._engine.stop()
        await self._running

    def stats(self) -> dict[str, Any]:
        return self._engine.stats()


_ROLES: dict[str, Callable[[Orders], _Service]] = {
    "collector": _CollectorService,
    "delivery": _DeliveryService,
}


async def _start(orders: Orders, line: socket.socket) -> None:
    service = _ROLES[orders.role](orders)
    await _Process(service, await Reporter.open(line), orders.generation).run()


class _Process:
    """Runs a service and reports its figures, until the supervisor or SIGTERM stops it."""

    def __init__(self, service: _Service, reporter: Reporter, generation: int) -> None:
        self._service = service
        self._reporter = reporter
        self._generation = generation  # of the settings in use
        self._is_started = False
        self._is_handed_over = False
        self._lag = LoopLag(asyncio.get_running_loop())
        self._news = asyncio.Event()  # there is something to report at once
        self._stop = asyncio.Event()
        self._reloads: asyncio.Queue[Reload] = asyncio.Queue()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        self._lag.start()
        tasks = [
            asyncio.create_task(each) for each in (self._report(), self._listen(), self._reload())
        ]
        self._service.on_end = self._stop.set
        try:
            await self._service.start()
            self._is_started = True
            self._news.set()
            await self._stop.wait()
            await self._service.stop(is_handed_over=self._is_handed_over)
            self._report_once()  # with what was counted since the last report
            await self._reporter.drain()
        finally:
            self._lag.stop()
            for task in tasks:
                task.cancel()

    async def _listen(self) -> None:
        """Handle the messages of the supervisor, which closes the connection to request a stop."""
        try:
            async for message in self._reporter.messages():
                if isinstance(message, Leave):
                    self._service.leave()
                elif isinstance(message, Drain):
                    self._is_handed_over = True
                    self._stop.set()
                else:
                    self._reloads.put_nowait(message)
        finally:
            self._stop.set()

    async def _reload(self) -> None:
        """Apply new settings, without blocking `_listen`: a reload of delivery may take seconds.

        A process that cannot apply the settings ends and is restarted with them.
        """
        while True:
            message = await self._reloads.get()
            try:
                await self._service.reload(message)
            except Exception:  # noqa: BLE001 - logged before the process ends
                structlog.get_logger("process").exception("reload_failed")
                self._stop.set()
                return
            change_logging(message.config.log, Redactor(message.config))
            self._generation = message.generation
            self._news.set()

    def _report_once(self) -> None:
        figures: dict[str, Any] = self._service.stats() if self._is_started else {"is_ready": False}
        totals = {**figures.get("totals", {}), "loop_lag": self._lag.histogram.figures()}
        self._reporter.report({**figures, "totals": totals, "generation": self._generation})

    async def _report(self) -> None:
        """Report every second; the figures are included once the service has started."""
        while True:
            self._report_once()
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPORT_S):
                    await self._news.wait()


if __name__ == "__main__":
    main()
