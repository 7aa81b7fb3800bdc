"""Run the program `pixelfast` in its own process, with its output in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Sequence

from tests.logs import check_log

PIXELFAST = (sys.executable, "-m", "pixelfast")
SERVERS = (("serve",), ("collect",), ("deliver",))  # the commands that log


def run_pixelfast(*arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself; return its exit code and output.

    `before` is a program with arguments that runs pixelfast, such as `prlimit`.
    """
    result = subprocess.run(
        [*before, *PIXELFAST, *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    if arguments[:1] in SERVERS:
        check_log(result.stderr)
    return result


def on_terminal(*command: str, columns: int = 400) -> str:
    """Return the output of a command on a terminal, including standard error."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "dumb", "COLUMNS": str(columns), "NO_COLOR": "1"}
    try:
        process = subprocess.Popen(
            [*PIXELFAST, *command],
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **environment},
        )
    finally:
        os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # EIO: the other end of the terminal is closed
        while chunk := os.read(ours, 65536):
            output += chunk
    os.close(ours)
    process.wait(30)
    return output.decode().replace("\r\n", "\n")


def in_pipe(*command: str) -> str:
    """Return the output of a command in a pipe, with standard error after standard output."""
    result = run_pixelfast(*command)
    return result.stdout + result.stderr
