"""`pixelfast check`: the mistakes in a settings file, or what it amounts to."""

from __future__ import annotations

import click

from pixelfast.config import describe, read_config
from pixelfast.config.sizing import EVENT_BYTES, PIXELS_PER_S, size_warnings
from pixelfast.printable import printable

__all__ = ["check"]


@click.command()
@click.argument("file")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=PIXELS_PER_S,
    show_default=True,
    metavar="N",
    help="Pixels per second to compute with how long the spool lasts.",
)
@click.option(
    "--event-bytes",
    type=click.FloatRange(min=0, min_open=True),
    default=EVENT_BYTES,
    show_default=True,
    metavar="N",
    help="Bytes of an event in the spool, for the same purpose.",
)
def check(file: str, rate: float, event_bytes: float) -> None:
    """Check a settings FILE and print the effective settings, with secrets masked.

    All mistakes are shown at once; the exit code is 2 if there is any. Warnings go to standard
    error and do not change the exit code.

    \b
    Example:
      pixelfast check pixelfast.toml
    """
    config = read_config(file)
    click.echo(describe(config), nl=False)
    for warning in size_warnings(config, rate, event_bytes):
        click.echo(f"warning: {printable(warning)}", err=True)
