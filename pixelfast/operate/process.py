"""What a collector process and the delivery process run."""

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
from pixelfast.operate.control import Orders, Reporter, receive_orders
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.loop_lag import LoopLag
from pixelfast.operate.signals import OTHER_SIGNALS
from pixelfast.spool import DataDir

__all__ = ["main"]

_REPORT_S = 1.0


class _Service(Protocol):
    async def start(self) -> None: ...

    def leave(self) -> None: ...

    async def stop(self) -> None: ...

    def stats(self) -> dict[str, Any]: ...


def main() -> None:
    """Run one process of the supervisor's; the descriptor of its line is the only argument."""
    for number in (signal.SIGINT, *OTHER_SIGNALS):  # the supervisor handles them
        signal.signal(number, signal.SIG_IGN)
    line = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(line.fileno(), False)
    try:
        orders = receive_orders(line)
    except EOFError:
        return
    name = f"collector-{orders.slot}" if orders.role == "collector" else orders.role
    set_up_logging(orders.config.log, name, Redactor(orders.config))
    Path("/proc/self/comm").write_text(f"pf-{name}")  # what ps and top show
    try:
        uvloop.run(_start(orders, line))
    except Exception:  # noqa: BLE001 - the process's edge
        structlog.get_logger("process").exception("process_failed")
        sys.exit(1)


class _CollectorService:
    """A collector as a service."""

    def __init__(self, orders: Orders) -> None:
        from pixelfast.collect import Worker
        from pixelfast.collect.budgets import RateBudgets

        data = DataDir.open(orders.data_dir)
        os.set_inheritable(orders.rates_fd, False)
        budgets = RateBudgets.open(orders.rates_fd, orders.rate_places)
        self._worker = Worker(orders.config, data, orders.slot, orders.workers, budgets=budgets)
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
        self._worker.leave()

    async def stop(self) -> None:
        await self._worker.stop()

    def stats(self) -> dict[str, Any]:
        return self._worker.stats()


class _DeliveryService:
    """Delivery as a service."""

    def __init__(self, orders: Orders) -> None:
        from pixelfast.deliver import Engine

        self._engine = Engine(orders.config, DataDir.open(orders.data_dir), orders.workers)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.create_task(self._engine.run())

    def leave(self) -> None:
        """Go on: what the collectors still store is to be delivered."""

    async def stop(self) -> None:
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
    await _run(_ROLES[orders.role](orders), line)


async def _run(service: _Service, line: socket.socket) -> None:
    """Run a service until the supervisor or SIGTERM says stop; report all the while."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reporter = await Reporter.open(line)
    started = asyncio.Event()
    lag = LoopLag(asyncio.get_running_loop())
    lag.start()
    reporting = asyncio.create_task(_report(reporter, service, started, lag))
    gone = asyncio.create_task(reporter.supervisor_gone(service.leave))
    stopping = asyncio.create_task(stop.wait())
    try:
        await service.start()
        started.set()
        await asyncio.wait({gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await service.stop()
    finally:
        lag.stop()
        for task in (reporting, gone, stopping):
            task.cancel()


async def _report(
    reporter: Reporter, service: _Service, started: asyncio.Event, lag: LoopLag
) -> None:
    """Report every second that the loop turns, and with what figures once there are some."""
    while True:
        figures: dict[str, Any] = service.stats() if started.is_set() else {"is_ready": False}
        totals = {**figures.get("totals", {}), "loop_lag": lag.histogram.figures()}
        reporter.report({**figures, "totals": totals})
        if started.is_set():
            await asyncio.sleep(_REPORT_S)
        else:  # readiness is reported at once
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(started.wait(), _REPORT_S)


if __name__ == "__main__":
    main()
