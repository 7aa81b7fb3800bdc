"""Asks a running server, by signals and at its admin address."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from pixelfast.config import parse_address, read_data_dir
from pixelfast.errors import PixelfastError
from pixelfast.operate.reload import Outcome
from pixelfast.printable import printable
from pixelfast.spool import DataDir

__all__ = ["ask", "get_json", "report", "with_data_dir"]

_POLL_S = 0.05
_TIMEOUT_S = 5.0


def with_data_dir(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config and --data-dir, and pass the command `data` instead.

    Only `data_dir` is read from the settings file, because the server reports its errors.
    """

    def run(config: str | None, data_dir: str | None) -> None:
        command(data=DataDir.find(data_dir or read_data_dir(config)))

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    for option in (
        click.option("--data-dir", metavar="DIR", help="Data directory of the server."),
        click.option(
            "-c", "--config", metavar="FILE", help="Settings file; only `data_dir` is read."
        ),
    ):
        run = option(run)
    return run


def ask(data: DataDir, number: signal.Signals, outcome_name: str, wait_s: float) -> Outcome:
    """Send a signal to the server of a data directory; return the outcome.

    Raises:
        PixelfastError: no server is running, it belongs to another user, or it did not respond.
    """
    pid = data.owner()
    if not pid:
        raise PixelfastError(
            f"no server of this user is running with the data directory {data.path}"
        )
    asked_ns = time.monotonic_ns()
    try:
        os.kill(pid, number)
    except OSError as error:
        raise PixelfastError(f"process {pid}: {error.strerror}") from None
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        outcome = Outcome.read(data.path / outcome_name)
        # One that began earlier may not have seen the latest changes.
        if outcome is not None and outcome.pid == pid and outcome.began_ns >= asked_ns:
            return outcome
        if data.owner() != pid:
            raise PixelfastError(f"the server (process {pid}) has ended")
        time.sleep(_POLL_S)
    raise PixelfastError(f"the server (process {pid}) did not respond within {wait_s:g} s")


def report(outcome: Outcome, success: str, failure: str) -> None:
    """Print the outcome; exit with 1 if it is a failure."""
    click.echo(success if outcome.is_successful else failure, err=not outcome.is_successful)
    for line in outcome.lines:
        click.echo(printable(line), err=not outcome.is_successful)
    if not outcome.is_successful:
        sys.exit(1)


def get_json(admin: str, path: str) -> dict[str, Any]:
    """Return the JSON object that an admin address responds with.

    Raises:
        OSError: nothing listens there.
        HTTPException, ValueError: the response is something else.
    """
    address = parse_address(admin)
    connection = http.client.HTTPConnection(
        address.host or "localhost", address.port or None, timeout=_TIMEOUT_S
    )
    with contextlib.closing(connection):
        if address.path:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(_TIMEOUT_S)
            connection.sock.connect(address.path)
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
    if not isinstance(found, dict):
        raise ValueError(path)
    return found
