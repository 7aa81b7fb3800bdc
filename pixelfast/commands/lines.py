"""Writes events as lines to standard output, which may be a terminal or a closed pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from pixelfast.printable import printable_json

__all__ = ["stdout_may_close", "write_lines"]


def write_lines(body: bytes | memoryview) -> None:
    """Write events, one JSON object per line, with control characters escaped."""
    text = str(body, "utf-8", "replace")
    safe = printable_json(text)
    sys.stdout.buffer.write(body if safe is text else safe.encode())


@contextlib.contextmanager
def stdout_may_close() -> Iterator[None]:
    """End quietly if the reader of standard output has ended, as with `| head`."""
    try:
        yield
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, which would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
