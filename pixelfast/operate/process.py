"""What a collector process and the delivery process run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop

from pixelfast.config import Redactor
from pixelfast.operate.control import Orders, Reporter, receive_orders
from pixelfast.operate.logging import set_up_logging
from pixelfast.spool import DataDir

__all__ = ["main"]

_REPORT_S = 1.0


class _Service(Protocol):
    def stats(self) -> dict[str, Any]: ...


def main() -> None:
    """Run one process of the supervisor's; the descriptor of its line is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
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
        uvloop.run(_ROLES[orders.role](orders, line))
    except Exception:  # noqa: BLE001 - the process's edge
        structlog.get_logger("process").exception("process_failed")
        sys.exit(1)


async def _collect(orders: Orders, line: socket.socket) -> None:
    from pixelfast.collect import Worker

    sockets = []
    for fd in orders.listen_fds:
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    worker = Worker(orders.config, DataDir.open(orders.data_dir), orders.slot, orders.workers)
    stop = _stop_on_sigterm()
    await worker.start(sockets)
    await _report_until(stop, line, worker)
    await worker.stop()


async def _deliver(orders: Orders, line: socket.socket) -> None:
    from pixelfast.deliver import Engine

    engine = Engine(orders.config, DataDir.open(orders.data_dir), orders.workers)
    stop = _stop_on_sigterm()
    running = asyncio.create_task(engine.run())
    await _report_until(stop, line, engine)
    engine.stop()
    await running


_ROLES: dict[str, Callable[[Orders, socket.socket], Coroutine[Any, Any, None]]] = {
    "collector": _collect,
    "delivery": _deliver,
}


def _stop_on_sigterm() -> asyncio.Event:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


async def _report_until(stop: asyncio.Event, line: socket.socket, service: _Service) -> None:
    """Report figures until we are to stop, or the supervisor is gone."""
    reporter = await Reporter.open(line)
    gone = asyncio.create_task(reporter.supervisor_gone())
    stopping = asyncio.create_task(stop.wait())
    while not (gone.done() or stopping.done()):
        reporter.report(service.stats())
        await asyncio.wait({gone, stopping}, timeout=_REPORT_S, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    stopping.cancel()


if __name__ == "__main__":
    main()
