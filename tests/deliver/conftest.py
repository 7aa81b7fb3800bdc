"""Segments to deliver from, and a check that no descriptor or thread is left open."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from pixelfast.spool import DataDir
from tests.leaks import nothing_left_open
from tests.spools import Feed, open_data


class _Unsynced(sqlite3.Connection):
    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA synchronous = FULL":
            statement = "PRAGMA synchronous = OFF"
        return super().execute(statement, *parameters)


@pytest.fixture(autouse=True)
def unsynced_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not sync databases: tests need not survive a power failure, and syncs are slow.

    `tests/reliability` tests power failures.
    """
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=_Unsynced))


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Log plain tracebacks, because those with all variables are slow."""
    before = structlog.get_config()
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before["processors"][:-1], renderer])
    yield
    structlog.configure(**before)


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Exclude objects of other tests from garbage collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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


@pytest.fixture(autouse=True)
def leaves_nothing_open(_first_loop: None) -> Iterator[None]:
    with nothing_left_open(collects=True):
        yield
