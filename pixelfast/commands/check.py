"""`pixelfast check`: the mistakes in a settings file, or what it amounts to."""

from __future__ import annotations

import time

import click

from pixelfast.collect.certificates import load_certificate, warnings_about
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
    config = read_config(file)
    click.echo(describe(config), nl=False)
    tls = config.server.tls
    if tls is not None:
        for warning in warnings_about(tls, load_certificate(tls), time.time()):
            click.echo(f"warning: {warning}", err=True)
