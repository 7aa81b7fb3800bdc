"""Tests of replication end their clients of Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks import nothing_left_open


@pytest.fixture(autouse=True)
def leaves_nothing_open(_first_loop: None) -> Iterator[None]:
    """Wait for clients that end in the background, which later tests would see."""
    with nothing_left_open(collects=True):
        yield
