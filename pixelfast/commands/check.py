"""`pixelfast check`: the mistakes in a settings file, or what it amounts to."""

from __future__ import annotations

import time

import click

from pixelfast.collect.certificates import load_certificate, warnings_about
from pixelfast.config import describe, read_config

__all__ = ["check"]


@click.command()
@click.argument("file")
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Accept that environment variables and files of secrets are missing on this machine.",
)
def check(file: str, without_secrets: bool) -> None:
    """Check a settings FILE and print the effective settings, with secrets masked.

    All mistakes are shown at once; the exit code is 2 if there is any.

    \b
    Example:
      pixelfast check pixelfast.toml
    """
    may_lack = ("destinations", "sources") if without_secrets else ()
    config = read_config(file, may_lack=may_lack)
    click.echo(describe(config), nl=False)
    tls = config.server.tls
    if tls is not None and not without_secrets:
        for warning in warnings_about(tls, load_certificate(tls), time.time()):
            click.echo(f"warning: {warning}", err=True)
