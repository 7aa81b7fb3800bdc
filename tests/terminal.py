"""The command `pixelfast` on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys


def on_terminal(*command: str, columns: int = 400) -> str:
    """Return what a command prints on a terminal, standard error included."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "dumb", "COLUMNS": str(columns), "NO_COLOR": "1"}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pixelfast", *command],
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **environment},
        )
    finally:
        os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # EIO: its end of the terminal is closed
        while chunk := os.read(ours, 65536):
            output += chunk
    os.close(ours)
    process.wait(30)
    return output.decode().replace("\r\n", "\n")


def in_pipe(*command: str) -> str:
    """Return what a command prints into a pipe, standard error after standard output."""
    result = subprocess.run(
        [sys.executable, "-m", "pixelfast", *command],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return (result.stdout + result.stderr).decode()
