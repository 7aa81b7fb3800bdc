"""A collector or delivery without a supervisor: `pixelfast collect` and `pixelfast deliver`."""

from __future__ import annotations

import asyncio
import signal
import socket

import uvloop

from pixelfast.collect import Worker
from pixelfast.config import Config, Redactor
from pixelfast.deliver import Engine, register_destinations
from pixelfast.operate.demo import with_demo_source
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.sockets import listen
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["collect_alone", "deliver_alone"]


def collect_alone(config: Config, slot: int) -> None:
    """Collect into one slot until SIGTERM or SIGINT.

    Raises:
        ConfigError: an address can't be listened at.
        SpoolError: the slot can't be used, or another collector writes into it.
    """
    set_up_logging(config.log, f"collector-{slot}", Redactor(config))
    data = DataDir.open(config.data_dir)
    data.make_private()
    config = with_demo_source(config, data.path)
    register_destinations(config, data)  # else one that starts later would miss what comes before
    sockets, addresses = listen(config.server.listen, 1)
    uvloop.run(_collect(Worker(config, data, slot), sockets[0], addresses))


async def _collect(worker: Worker, sockets: list[socket.socket], addresses: list[str]) -> None:
    stop = _stop_on_signals()
    await worker.start(sockets)
    print(printable("collecting at " + ", ".join(addresses)), flush=True)
    await stop.wait()
    await worker.stop()


def deliver_alone(config: Config) -> None:
    """Deliver until SIGTERM or SIGINT.

    Raises:
        SpoolError: the data directory can't be used.
    """
    set_up_logging(config.log, "delivery", Redactor(config))
    data = DataDir.open(config.data_dir)
    data.make_private()
    config = with_demo_source(config, data.path)
    register_destinations(config, data)
    uvloop.run(_deliver(Engine(config, data)))


async def _deliver(engine: Engine) -> None:
    stop = _stop_on_signals()
    running = asyncio.create_task(engine.run())
    print("delivering to " + ", ".join(runner.name for runner in engine.runners), flush=True)
    await stop.wait()
    engine.stop()
    await running


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
