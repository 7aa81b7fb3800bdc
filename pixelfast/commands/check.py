"""`pixelfast check`: the mistakes in a settings file, or what it amounts to."""

from __future__ import annotations

import click

from pixelfast.config import describe, read_config

__all__ = ["check"]


@click.command()
@click.argument("file")
def check(file: str) -> None:
    """Check a settings FILE and print the effective settings, with secrets masked.

    All mistakes are shown at once; the exit code is 2 if there is any.

    \b
    Example:
      pixelfast check pixelfast.toml
    """
    click.echo(describe(read_config(file)), nl=False)
