"""`pixelfast upgrade`: replace the running server with the installed version."""

from __future__ import annotations

import signal

import click

from pixelfast.commands.running import ask, report, with_data_dir
from pixelfast.operate.reload import UPGRADE_OUTCOME
from pixelfast.spool import DataDir

__all__ = ["upgrade"]

_WAIT_S = 180.0


@click.command()
@with_data_dir
def upgrade(data: DataDir) -> None:
    """Replace the running server with the installed version.

    No request and no event is lost. Settings that a reload does not change also take effect. If the
    installed version cannot take over, the running server continues, and the exit status is 1.

    \b
    Example:
      pixelfast upgrade -c pixelfast.toml
    """
    outcome = ask(data, signal.SIGUSR2, UPGRADE_OUTCOME, _WAIT_S)
    report(outcome, "server upgraded", "upgrade failed: the running version continues")
