"""Options that several commands share, and the settings that result from them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from pixelfast.config import Config, read_config
from pixelfast.errors import ConfigError
from pixelfast.operate.handover import is_handed_over
from pixelfast.operate.reload import SettingsFile, errors_in

__all__ = [
    "settings_file",
    "with_admin",
    "with_brokers",
    "with_listen",
    "with_settings",
    "with_sources",
    "with_stored_data",
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config and --data-dir, and pass the command `settings` instead.

    An option with a name such as `server__listen` sets `server.listen` and is not passed on.
    `settings_file` returns where the settings were read from.
    """
    return _with_settings(command, ())


def with_sources(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same as `with_settings` for a command that uses neither destinations nor brokers.

    Environment variables and files of secrets that these settings refer to may be missing.
    """
    return _with_settings(command, ("destinations", "cluster"))


def with_stored_data(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same as `with_sources` for a command that does not use write keys either."""
    return _with_settings(command, ("destinations", "sources", "cluster"))


def with_brokers(command: Callable[..., None]) -> Callable[..., None]:
    """Do the same as `with_stored_data` for a command that connects to the brokers of a cluster."""
    return _with_settings(command, ("destinations", "sources"))


def _with_settings(command: Callable[..., None], may_lack: tuple[str, ...]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(config: str | None, data_dir: str | None, **arguments: Any) -> None:
        overrides: dict[str, Any] = {"data_dir": data_dir}
        for name in [name for name in arguments if "__" in name]:
            overrides[name.replace("__", ".")] = arguments.pop(name)
        given = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in overrides.items()
            if value not in (None, ())
        }
        read = functools.partial(read_config, config, given, may_lack=may_lack)
        file = SettingsFile(config, read)
        settings = Config()
        try:
            settings = read()
        except ConfigError as error:
            if not is_handed_over(os.environ):
                raise
            file = SettingsFile(config, read, errors_in(error))  # the old settings stay in effect
        click.get_current_context().obj = file
        command(settings=settings, **arguments)

    for option in (
        click.option("--data-dir", metavar="DIR", help="Data directory; overrides `data_dir`."),
        click.option("-c", "--config", metavar="FILE", help="Settings file. Default: none."),
    ):
        run = option(run)
    return run


def settings_file() -> SettingsFile:
    """Return where the settings of the current command were read from, for rereading them."""
    found = click.get_current_context().obj
    assert isinstance(found, SettingsFile)
    return found


with_listen = click.option(
    "--listen",
    "server__listen",
    multiple=True,
    metavar="ADDRESS",
    help="Address that accepts pixels, HOST:PORT or unix:/PATH; may be repeated.",
)

with_admin = click.option(
    "--admin",
    "server__admin",
    metavar="ADDRESS",
    help='Address of health checks and metrics; "": none.',
)
