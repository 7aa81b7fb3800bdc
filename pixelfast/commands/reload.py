"""`pixelfast reload`: have the running server follow its changed settings file."""

from __future__ import annotations

import signal

import click

from pixelfast.commands.asking import ask, report, with_data_dir
from pixelfast.operate.reload import RELOAD_OUTCOME
from pixelfast.spool import DataDir

__all__ = ["reload"]

_WAIT_S = 120.0


@click.command()
@with_data_dir
def reload(data: DataDir) -> None:
    """Have the running server read its settings file again; no request or event is lost.

    The whole file is checked first: with a mistake nothing changes, the mistakes are printed, and
    the exit code is 1. Settings that need a restart are printed, too.

    \b
    Example:
      pixelfast reload -c pixelfast.toml
    """
    report(
        ask(data, signal.SIGHUP, RELOAD_OUTCOME, _WAIT_S),
        "reloaded",
        "not reloaded: nothing changed",
    )
