"""What a test leaves open: descriptors and threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def open_fds() -> dict[int, str]:
    """The open descriptors of this process, each with what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


@contextmanager
def nothing_left_open(*, collects: bool = False) -> Iterator[None]:
    """Fail if descriptors or threads are left that the body has opened or started.

    `collects`: collect garbage first if there are any.
    """
    fds, threads = open_fds(), set(threading.enumerate())
    yield
    if collects and open_fds().items() - fds.items():
        gc.collect()
    assert {} == dict(open_fds().items() - fds.items())
    assert set() == set(threading.enumerate()) - threads
