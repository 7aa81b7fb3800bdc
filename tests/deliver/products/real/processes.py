"""Servers of real products as child processes."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Absent", "background"]

_STOP_S = 10.0


class Absent(Exception):
    """A product cannot be started here."""


@contextmanager
def background(
    command: list[str], folder: Path, announces: re.Pattern[str], start_s: float
) -> Iterator[int]:
    """Run a server; yield the port that it prints on its standard output.

    The server ends when its standard input is closed, and thus with this process.
    """
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, cwd=folder
        )
    assert process.stdin is not None
    try:
        ends = time.monotonic() + start_s
        while (match := announces.search(output.read_text(errors="replace"))) is None:
            if process.poll() is not None or time.monotonic() > ends:
                said = output.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{command[0]} did not start: {said}")
            time.sleep(0.05)
        yield int(match[1])
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
