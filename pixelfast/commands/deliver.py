"""`pixelfast deliver`: run a delivery process without a supervisor."""

from __future__ import annotations

import asyncio

import click
import uvloop

from pixelfast.commands.options import with_settings
from pixelfast.commands.startup import prepare, stop_on_signals
from pixelfast.config import Config
from pixelfast.deliver import DeliveryEngine, make_engine

__all__ = ["deliver"]


@click.command()
@with_settings
def deliver(settings: Config) -> None:
    """Run a delivery process without a supervisor.

    It delivers the events that `pixelfast collect` stores to all destinations. If another process
    already delivers to a destination, it waits until that process ends. With `[cluster]`, it reads
    the topic of the cluster, and all processes share the work. SIGTERM and Ctrl-C stop it.

    \b
    Example:
      pixelfast deliver -c pixelfast.toml
    """
    config, data = prepare(settings, "delivery")
    uvloop.run(_run(make_engine(config, data)))


async def _run(engine: DeliveryEngine) -> None:
    stop = stop_on_signals()
    running = asyncio.create_task(engine.run())
    click.echo("delivering to " + ", ".join(engine.names))
    await stop.wait()
    engine.stop()
    await running
