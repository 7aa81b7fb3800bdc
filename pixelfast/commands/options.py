"""Options that several commands have, and the settings that follow from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from pixelfast.config import read_config

__all__ = ["with_listen", "with_settings"]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config and --data-dir, and pass the command `settings` instead of them.

    An option with a name such as `server__listen` sets `server.listen`; it is not passed on.
    """

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
        command(settings=read_config(config, given), **arguments)

    for option in (
        click.option("--data-dir", metavar="DIR", help="The data directory."),
        click.option("-c", "--config", metavar="FILE", help="The settings; default: none."),
    ):
        run = option(run)
    return run


with_listen = click.option(
    "--listen",
    "server__listen",
    multiple=True,
    metavar="ADDRESS",
    help='Listen on "HOST:PORT" or "unix:/PATH"; may be repeated.',
)
