"""`pixelfast upgrade`: have the installed version take the place of the one that runs."""

from __future__ import annotations

import signal

import click

from pixelfast.commands.asking import ask, report, with_data_dir
from pixelfast.operate.reload import UPGRADE_OUTCOME
from pixelfast.spool import DataDir

__all__ = ["upgrade"]

_WAIT_S = 180.0


@click.command()
@with_data_dir
def upgrade(data: DataDir) -> None:
    """Replace the running server by the installed version; no request or event is lost.

    Settings that a reload does not change are read, too. If the installed version cannot take over,
    the running one goes on, and the exit code is 1.

    \b
    Example:
      pixelfast upgrade -c pixelfast.toml
    """
    outcome = ask(data, signal.SIGUSR2, UPGRADE_OUTCOME, _WAIT_S)
    report(outcome, "upgraded", "upgrade failed: the running version goes on")
