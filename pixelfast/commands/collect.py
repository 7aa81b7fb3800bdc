"""`pixelfast collect`: run one collector without a supervisor."""

from __future__ import annotations

import socket

import click
import uvloop

from pixelfast.collect import Worker
from pixelfast.commands.options import with_listen, with_settings
from pixelfast.commands.startup import check_certificate, prepare, stop_on_signals
from pixelfast.config import Config
from pixelfast.operate.limits import apply_limits
from pixelfast.operate.sockets import listen
from pixelfast.printable import printable
from pixelfast.spool.format import MAX_SLOT

__all__ = ["collect"]


@click.command()
@with_settings
@with_listen
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
    needs its own slot. SIGTERM and Ctrl-C stop it.

    \b
    Example:
      pixelfast collect -c pixelfast.toml --slot 0
    """
    config, data = prepare(settings, f"collector-{slot}")
    apply_limits(config, 1)
    check_certificate(config)
    unix_mode = int(config.server.unix_mode, 8)
    sockets, addresses = listen(config.server.listen, 1, unix_mode)
    tls_sockets: list[list[socket.socket]] = [[]]
    if config.server.tls is not None:
        tls_sockets, tls_addresses = listen(
            config.server.tls.listen, 1, unix_mode, setting="server.tls.listen"
        )
        addresses += [f"{address} (TLS)" for address in tls_addresses]
    uvloop.run(_run(Worker(config, data, slot), sockets[0], tls_sockets[0], addresses))


async def _run(
    worker: Worker,
    sockets: list[socket.socket],
    tls_sockets: list[socket.socket],
    addresses: list[str],
) -> None:
    stop = stop_on_signals()
    await worker.start(sockets, tls_sockets)
    click.echo(printable("collector listening on " + ", ".join(addresses)))
    await stop.wait()
    await worker.stop()
