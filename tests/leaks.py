"""Find descriptors and threads that a test leaves open."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def open_fds() -> dict[int, str]:
    """Return the open descriptors of this process, and what each refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


@contextmanager
def nothing_left_open(*, collects: bool = False) -> Iterator[None]:
    """Fail if the body leaves descriptors open or threads running.

    With `collects`, collect garbage before failing because of descriptors.
    """
    fds, threads = open_fds(), set(threading.enumerate())
    yield
    if collects and open_fds().items() - fds.items():
        gc.collect()
    assert {} == dict(open_fds().items() - fds.items())
    assert set() == set(threading.enumerate()) - threads
