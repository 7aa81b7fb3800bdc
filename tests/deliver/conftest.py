"""No test of delivery leaves a descriptor or a thread behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator

import pytest
import uvloop

from tests.deliver.runners import quick

__all__ = ["quick"]


@pytest.fixture(scope="session", autouse=True)
def _first_loop() -> None:
    """The first loop of a process opens pipes that stay."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def leaves_nothing_open(_first_loop: None) -> Iterator[None]:
    before = _descriptors()
    threads = threading.active_count()
    yield
    if _descriptors().keys() - before.keys():
        gc.collect()
    assert {} == {fd: what for fd, what in _descriptors().items() if fd not in before}
    assert threads == threading.active_count()


def _descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the one that listed them
    return found
