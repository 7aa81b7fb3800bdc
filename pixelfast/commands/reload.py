"""`pixelfast reload`: reload the settings of the running server."""

from __future__ import annotations

import signal

import click

from pixelfast.commands.running import ask, report, with_data_dir
from pixelfast.operate.reload import RELOAD_OUTCOME
from pixelfast.spool import DataDir

__all__ = ["reload"]

_WAIT_S = 120.0


@click.command()
@with_data_dir
def reload(data: DataDir) -> None:
    """Reload the settings of the running server.

    No request and no event is lost. If the file has errors, nothing changes, the errors are
    printed, and the exit status is 1. Settings that require a restart are listed.

    \b
    Example:
      pixelfast reload -c pixelfast.toml
    """
    report(
        ask(data, signal.SIGHUP, RELOAD_OUTCOME, _WAIT_S),
        "settings reloaded",
        "reload failed: the settings have not changed",
    )
