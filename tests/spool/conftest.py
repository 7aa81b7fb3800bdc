"""Fixtures of the spool's tests: a data directory, a slot written by hand, captured logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from pixelfast.spool import DataDir
from tests.spools import Slot


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Capture the log, so that thousands of damaged frames do not fill the report."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir.open(tmp_path / "data")


@pytest.fixture
def slot(data: DataDir) -> Iterator[Slot]:
    slot = Slot(data)
    yield slot
    slot.close()
