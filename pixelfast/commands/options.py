"""What the commands have in common: options for settings, and clear answers to mistakes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from pixelfast.config import Config, read_config
from pixelfast.errors import ConfigError, PixelfastError
from pixelfast.printable import printable

__all__ = ["clear_answers", "settings_of", "with_settings"]

_BAD_SETTINGS = 2


@contextlib.contextmanager
def clear_answers() -> Iterator[None]:
    """Errors that we raise on purpose are messages, not tracebacks."""
    try:
        yield
    except ConfigError as error:
        click.echo(str(error), err=True)  # printable, and may have several lines
        sys.exit(_BAD_SETTINGS)
    except PixelfastError as error:
        click.echo(printable(f"pixelfast: {error}"), err=True)
        sys.exit(1)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--data-dir", metavar="DIR", help="Where everything is kept."),
        click.option("-c", "--config", metavar="FILE", help="Settings; without, the defaults."),
    ):
        command = option(command)
    return command


def settings_of(config: str | None, **overrides: Any) -> Config:
    given = {
        name.replace("__", "."): list(value) if isinstance(value, tuple) else value
        for name, value in overrides.items()
        if value not in (None, ())
    }
    return read_config(config, given)
