"""`pixelfast check`: print the errors of a settings file, or the effective settings."""

from __future__ import annotations

import time

import click

from pixelfast.config import describe, read_config
from pixelfast.config.sizing import EVENT_BYTES, PIXELS_PER_S, size_warnings
from pixelfast.errors import ConfigErrors
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
    help="Pixels per second, to compute how long the spool lasts.",
)
@click.option(
    "--event-bytes",
    type=click.FloatRange(min=0, min_open=True),
    default=EVENT_BYTES,
    show_default=True,
    metavar="N",
    help="Size of an event in the spool, to compute how long it lasts.",
)
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Ignore missing environment variables and secret files.",
)
def check(file: str, rate: float, event_bytes: float, without_secrets: bool) -> None:
    """Check a settings file and print the effective settings.

    FILE is the settings file. Secrets are masked. All errors are printed at once, except for TOML
    syntax errors. The exit status is 2 if there are errors. Warnings are printed to standard error
    and do not change the exit status.

    \b
    Example:
      pixelfast check pixelfast.toml
    """
    may_lack = ("destinations", "sources", "server.tls", "cluster") if without_secrets else ()
    config = read_config(file, may_lack=may_lack)
    # Imported here to keep `check --help` fast.
    from pixelfast.deliver.kafka.check import check_properties

    if problems := list(
        check_properties(config.destinations, config.cluster, without_security=without_secrets)
    ):
        raise ConfigErrors(file, problems)
    click.echo(describe(config), nl=False)
    warnings = list(size_warnings(config, rate, event_bytes))
    if config.server.tls is not None and not without_secrets:
        # Imported here to keep `check --help` fast.
        from pixelfast.collect.certificates import load_certificate, warnings_about

        tls = config.server.tls
        warnings += warnings_about(tls, load_certificate(tls), time.time())
    for warning in warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
