"""`pixelfast collect`: run one collector without a supervisor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import click
import uvloop

from pixelfast.collect import Worker
from pixelfast.commands.options import settings_file, with_admin, with_listen, with_settings
from pixelfast.commands.startup import (
    check_certificate,
    cluster_membership,
    lone_admin,
    prepare,
    run_alone,
)
from pixelfast.config import Config
from pixelfast.operate.control import Orders
from pixelfast.operate.limits import apply_limits
from pixelfast.operate.signals import hold_signals
from pixelfast.operate.sockets import listen
from pixelfast.printable import printable
from pixelfast.spool.format import MAX_SLOT

__all__ = ["collect"]


@click.command()
@with_settings
@with_listen
@with_admin
@click.option(
    "--slot",
    type=click.IntRange(0, MAX_SLOT),
    default=0,
    metavar="N",
    show_default=True,
    help="Slot of the spool to write.",
)
def collect(settings: Config, slot: int) -> None:
    """Run one collector without a supervisor.

    It receives pixels and stores their events; `pixelfast deliver` delivers them. Each collector
    needs its own slot.

    SIGTERM and Ctrl-C stop it, and SIGHUP reloads the settings. With `[cluster]` or --admin, it
    serves the admin address. If `server.admin` is in use, it continues without it.

    \b
    Example:
      pixelfast collect -c pixelfast.toml --slot 0
    """
    hold_signals()  # until they are handled; by default they end the process
    config, data = prepare(settings, f"collector-{slot}")
    apply_limits(config, 1)
    check_certificate(config)
    member = cluster_membership(config, data, f"collector-{slot}")
    unix_mode = int(config.server.unix_mode, 8)
    sockets, addresses = listen(config.server.listen, 1, unix_mode)
    tls_sockets: list[list[socket.socket]] = [[]]
    if config.server.tls is not None:
        tls_sockets, tls_addresses = listen(
            config.server.tls.listen, 1, unix_mode, setting="server.tls.listen"
        )
        addresses += [f"{address} (TLS)" for address in tls_addresses]
    worker = Worker(config, data, slot)
    with member as join_cluster:
        uvloop.run(
            _run(
                Orders(role="collector", config=config, data_dir=str(data.path), slot=slot),
                _Collection(worker, sockets[0], tls_sockets[0]),
                addresses,
                join_cluster,
                is_demo=not settings.sources,
            )
        )


async def _run(
    orders: Orders,
    collection: _Collection,
    addresses: list[str],
    join_cluster: Callable[[], None],
    *,
    is_demo: bool,
) -> None:
    def on_started() -> None:
        join_cluster()
        click.echo(printable("collector listening on " + ", ".join(addresses)))

    await run_alone(
        orders,
        collection,
        settings_file(),
        on_started,
        lone_admin(orders.config),
        is_demo=is_demo,
    )


class _Collection:
    """A collector as the work of a process."""

    def __init__(
        self, worker: Worker, sockets: list[socket.socket], tls_sockets: list[socket.socket]
    ) -> None:
        self._worker = worker
        self._sockets, self._tls_sockets = sockets, tls_sockets

    async def run(self, stop: asyncio.Event, on_started: Callable[[], None]) -> None:
        await self._worker.start(self._sockets, self._tls_sockets)
        on_started()
        await stop.wait()
        await self._worker.stop()

    async def reload(self, config: Config) -> None:
        self._worker.reload(config)

    def stats(self) -> dict[str, Any]:
        return self._worker.stats()
