"""`pixelfast version`: print the versions that a bug report needs."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import version as version_of

import click

from pixelfast import __version__

__all__ = ["version"]


@click.command()
def version() -> None:
    """Print the versions of pixelfast and its dependencies.

    \b
    Example:
      pixelfast version
    """
    click.echo(f"pixelfast {__version__}")
    libraries = [f"{name} {version_of(name)}" for name in ("uvloop", "httptools", "orjson")]
    runtime = [
        f"Python {platform.python_version()}",
        *libraries,
        f"SQLite {sqlite3.sqlite_version}",
    ]
    click.echo(", ".join(runtime))
