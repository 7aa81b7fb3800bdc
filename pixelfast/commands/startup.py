"""Starts the commands that run in the foreground."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import click
import structlog

from pixelfast.collect.certificates import load_certificate, warnings_about
from pixelfast.commands.demo import with_demo_source
from pixelfast.config import Config, Redactor, parse_address
from pixelfast.deliver import register_destinations
from pixelfast.deliver.cluster.starts import note_starts
from pixelfast.errors import ConfigError, SpoolError
from pixelfast.operate.alone import LoneProcess, LoneService
from pixelfast.operate.control import Orders
from pixelfast.operate.logging import set_up_logging
from pixelfast.operate.reload import SettingsFile
from pixelfast.operate.sockets import describe_failure
from pixelfast.spool import DataDir, describe_trouble

if TYPE_CHECKING:
    from pixelfast.operate.admin import Admin

__all__ = [
    "LoneAdmin",
    "adopt",
    "adopt_reloaded",
    "check_certificate",
    "cluster_membership",
    "lone_admin",
    "open_admin",
    "prepare",
    "run_alone",
]


def prepare(
    settings: Config, process: str = "", *, is_exclusive: bool = False
) -> tuple[Config, DataDir]:
    """Set up logging and the data directory; return the settings to run with, and the directory.

    With `is_exclusive`, no other server can use the data directory while this process runs. The
    call blocks on the disk.

    Raises:
        SpoolError: the data directory cannot be used, or another server uses it.
    """
    set_up_logging(settings.log, process, Redactor(settings))
    data = DataDir.open(settings.data_dir)
    data.make_private()  # before the lock, so that other users cannot open its file
    if is_exclusive:
        data.lock()
    return adopt(settings, data, is_clustered=settings.cluster is not None), data


def adopt(settings: Config, data: DataDir, *, is_clustered: bool) -> Config:
    """Prepare the data directory for settings, and return the settings to run with.

    They include the demo source if `settings` has no source. All destinations are registered, so
    that they receive every event that is stored from now on. `is_clustered` is whether delivery
    reads the topic of `[cluster]`, which a reload does not change. The call blocks on the disk.

    Raises:
        SpoolError: the data directory cannot be used.
    """
    try:
        config = with_demo_source(settings, data.path)
        if is_clustered:
            note_starts(config, data)
        else:
            register_destinations(config, data)
    except OSError as error:
        raise SpoolError(f"data directory {describe_trouble(data.path, error)}") from error
    except sqlite3.Error as error:
        raise SpoolError(f"data directory {data.path}: SQLite: {error}") from error
    return config


def cluster_membership(
    config: Config, data: DataDir, writer: str, *, is_checked: bool = True
) -> AbstractContextManager[Callable[[], None]]:
    """Return a context with a function that makes this machine a member of its cluster.

    Unless `is_checked` is false, its name is checked first. `writer` is the name of the process
    that writes events, or "" if it only delivers. Without `[cluster]`, nothing of it is loaded.

    Raises:
        ConfigError: another live machine has its name.
    """
    if config.cluster is None:
        return nullcontext(lambda: None)
    from pixelfast.cluster.nodes import live_namesake, membership

    if is_checked and (other := live_namesake(config.cluster, data.node)):
        what = (
            f"is the name of another live machine ({other.host}, node id {other.node}); expected a"
            " name that no other machine has"
        )
        raise ConfigError("cluster.node", f'"{other.name}"', what)
    return membership(config.cluster, data.node, writer)


def check_certificate(config: Config) -> None:
    """Check the files of `server.tls`, and log warnings about them.

    Raises:
        ConfigError: a file cannot be used.
    """
    if config.server.tls is not None:
        certificate = load_certificate(config.server.tls)
        for warning in warnings_about(config.server.tls, certificate, time.time()):
            structlog.get_logger("supervisor").warning("tls_certificate_warning", problem=warning)


def adopt_reloaded(config: Config, data: DataDir, *, is_demo: bool, is_clustered: bool) -> Config:
    """Do the same for the settings of a reload, which cannot enable the demo source.

    Raises:
        ConfigError: there is no source, as in a truncated file, or a certificate cannot be used.
        SpoolError: the data directory cannot be used.
    """
    if not config.sources and not is_demo:
        what = "at least one source is required; a reload cannot enable the demo source"
        raise ConfigError("sources", None, what)
    check_certificate(config)
    return adopt(config, data, is_clustered=is_clustered)


async def open_admin(admin: Admin, address: str, *, is_required: bool) -> str:
    """Start the admin address; return it with its real port, or "" if there is none.

    Raises:
        ConfigError: the address is required and cannot be opened.
    """
    if not address:
        return ""
    try:
        return await admin.start(address)
    except OSError as error:
        if is_required:
            why = describe_failure(parse_address(address), error)
            what = f'cannot listen on "{address}": {why}'
            raise ConfigError("server.admin", None, what) from None
        structlog.get_logger("supervisor").warning("admin_address_in_use", address=address)
        return ""


class LoneAdmin(NamedTuple):
    """The admin address of a process without a supervisor; "" if it has none.

    A chosen address must be usable. Others may be in use, because several processes of a machine
    may share a settings file.
    """

    address: str
    is_chosen: bool


def lone_admin(config: Config) -> LoneAdmin:
    """Return the admin address of the command that is being run."""
    is_chosen = click.get_current_context().params["server__admin"] is not None
    has_any = is_chosen or config.cluster is not None
    return LoneAdmin(config.server.admin if has_any else "", is_chosen)


async def run_alone(
    orders: Orders,
    service: LoneService,
    file: SettingsFile,
    on_started: Callable[[], None],
    own_admin: LoneAdmin,
    *,
    is_demo: bool,
) -> None:
    """Run a process without a supervisor until a signal stops it.

    Args:
        orders: its role, settings and data directory.
        service: its work.
        file: what a reload reads.
        on_started: called once the work has begun.
        own_admin: its admin address.
        is_demo: whether there is only the demo source.
    """
    data = DataDir.find(orders.data_dir)
    is_clustered = orders.config.cluster is not None
    process = LoneProcess(
        orders,
        service,
        file,
        lambda config: adopt_reloaded(config, data, is_demo=is_demo, is_clustered=is_clustered),
    )
    if not own_admin.address:
        await process.run(on_started)
        return
    # Imported here because it requires aiohttp, which nothing else of a collector does.
    from pixelfast.operate.admin import Admin

    admin = Admin(process)
    try:
        address = await open_admin(admin, own_admin.address, is_required=own_admin.is_chosen)
        structlog.get_logger("process").info("admin_started", address=address)
        await process.run(on_started)
    finally:
        await admin.stop()
