"""Find descriptors and threads that a test leaves open."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ABANDONED_S = 20.0  # a request to brokers takes up to 10 s


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

    With `collects`, collect garbage and wait before failing: clients of Kafka end in the
    background, at the latest when a request that the body has abandoned times out.
    """
    fds, threads = open_fds(), set(threading.enumerate())

    def left() -> list[object]:
        return [*(open_fds().items() - fds.items()), *(set(threading.enumerate()) - threads)]

    yield
    until_s = time.monotonic() + (_ABANDONED_S if collects else 0.0)
    while (found := left()) and time.monotonic() < until_s:
        if not gc.collect():
            time.sleep(0.05)  # librdkafka does not announce that it has closed a connection
    assert not found, f"descriptors are open or threads are running: {found}"
