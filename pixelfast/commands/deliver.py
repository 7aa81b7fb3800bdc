"""`pixelfast deliver`: run a delivery process without a supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import click
import uvloop

from pixelfast.commands.options import settings_file, with_admin, with_settings
from pixelfast.commands.startup import cluster_membership, lone_admin, prepare, run_alone
from pixelfast.config import Config
from pixelfast.deliver import DeliveryEngine, make_engine
from pixelfast.operate.control import Orders
from pixelfast.operate.signals import hold_signals
from pixelfast.spool import DataDir

__all__ = ["deliver"]


@click.command()
@with_settings
@with_admin
def deliver(settings: Config) -> None:
    """Run a delivery process without a supervisor.

    It delivers the events that `pixelfast collect` stores to all destinations. If another process
    already delivers to a destination, it waits until that process ends. With `[cluster]`, it reads
    the topic of the cluster, and all processes share the work.

    SIGTERM and Ctrl-C stop it, and SIGHUP reloads the settings. With `[cluster]` or --admin, it
    serves the admin address. If `server.admin` is in use, it continues without it.

    \b
    Example:
      pixelfast deliver -c pixelfast.toml
    """
    hold_signals()  # until they are handled; by default they end the process
    config, data = prepare(settings, "delivery")
    with cluster_membership(config, data, writer="") as join_cluster:
        join_cluster()
        uvloop.run(_run(config, data, is_demo=not settings.sources))


async def _run(config: Config, data: DataDir, *, is_demo: bool) -> None:
    engine = make_engine(config, data)
    names = [each.name for each in config.destinations]
    orders = Orders(role="delivery", config=config, data_dir=str(data.path), destinations=names)
    await run_alone(
        orders,
        _Delivery(engine),
        settings_file(),
        lambda: click.echo("delivering to " + ", ".join(engine.names)),
        lone_admin(config),
        is_demo=is_demo,
    )


class _Delivery:
    """An engine as the work of a process."""

    def __init__(self, engine: DeliveryEngine) -> None:
        self._engine = engine

    async def run(self, stop: asyncio.Event, on_started: Callable[[], None]) -> None:
        running = asyncio.create_task(self._engine.run())
        stopping = asyncio.create_task(stop.wait())
        on_started()
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._engine.stop()
        await running

    async def reload(self, config: Config) -> None:
        await self._engine.reload(config)

    def stats(self) -> dict[str, Any]:
        return self._engine.stats()
