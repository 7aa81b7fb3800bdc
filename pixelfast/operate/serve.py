"""Everything in the foreground: what `pixelfast serve` runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import structlog
import uvloop

from pixelfast.config import Config, Redactor, parse_address
from pixelfast.deliver import register_destinations
from pixelfast.errors import ConfigError
from pixelfast.operate.admin import Admin
from pixelfast.operate.demo import with_demo_source
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.sockets import listen
from pixelfast.operate.supervisor import Supervisor
from pixelfast.operate.welcome import welcome
from pixelfast.spool import DataDir

__all__ = ["serve"]


def serve(config: Config, *, admin_is_chosen: bool) -> None:
    """Run until SIGTERM or SIGINT.

    `admin_is_chosen`: the admin address comes from a person. If not, and it is taken, pixelfast
    runs without one.

    Raises:
        ConfigError: an address can't be listened at.
        SpoolError: the data directory can't be used, or another pixelfast runs on it.
    """
    set_up_logging(config.log, redactor=Redactor(config))
    data = DataDir.open(config.data_dir)
    data.make_private()  # before the lock: strangers can't open its file from now on
    data.lock()
    demo = with_demo_source(config, data.path)
    workers = config.server.workers or len(os.sched_getaffinity(0))
    register_destinations(demo, data)  # before the first event that they are to get
    sockets, addresses = listen(config.server.listen, workers)
    _warn_of_hidden_sockets(config, data)
    uvloop.run(_run(demo, data, sockets, addresses, admin_is_chosen, is_demo=demo is not config))


def _warn_of_hidden_sockets(config: Config, data: DataDir) -> None:
    """A socket in the data directory can be connected to by its user alone."""
    for text in config.server.listen:
        path = parse_address(text).path
        if path and data.path.resolve() in Path(path).resolve().parents:
            structlog.get_logger("supervisor").warning("socket_is_in_data_dir", path=path)


async def _run(
    config: Config,
    data: DataDir,
    sockets: list[list[socket.socket]],
    addresses: list[str],
    admin_is_chosen: bool,
    *,
    is_demo: bool,
) -> None:
    supervisor = Supervisor(config, str(data.path), sockets)
    admin = Admin(supervisor)
    admin_address = await _start_admin(admin, config.server.admin, admin_is_chosen)

    def say_welcome() -> None:
        print(welcome(config, data, addresses, admin_address, is_demo=is_demo), flush=True)

    try:
        await supervisor.run(say_welcome)
    finally:
        await admin.stop()


async def _start_admin(admin: Admin, address: str, is_chosen: bool) -> str:
    if not address:
        return ""
    try:
        return await admin.start(address)
    except OSError as error:
        if is_chosen:
            raise ConfigError(
                "server.admin", f'"{address}"', f"an address that is free: {error.strerror}"
            ) from None
        structlog.get_logger("supervisor").warning("admin_address_taken", address=address)
        return ""
