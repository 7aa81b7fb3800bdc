"""Segments to deliver from; no test of delivery leaves a descriptor or a thread behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from pixelfast.spool import DataDir
from tests.leaks import nothing_left_open
from tests.spools import Feed, open_data


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path)


@pytest.fixture
def segment_bytes() -> int:
    return 1024


@pytest.fixture
def feed(data: DataDir, segment_bytes: int) -> Iterator[Feed]:
    with Feed(data, segment_bytes=segment_bytes) as feed:
        yield feed


@pytest.fixture(scope="session", autouse=True)
def _first_loop() -> None:
    """The first loop of a process opens pipes that stay."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def leaves_nothing_open(_first_loop: None) -> Iterator[None]:
    with nothing_left_open(collects=True):
        yield
