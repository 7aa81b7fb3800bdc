"""The machine of `simulated`, with new examples each time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.reliability.simdisk import SimulatedDisk
from tests.reliability.simulated import CrashMachine


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class TestCrashes(CrashMachine.TestCase):  # type: ignore[valid-type]
    settings = settings(
        max_examples=100,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def survivors(disk: SimulatedDisk, folder: Path, name: str) -> set[bytes | None]:
    """Return the possible contents of a file after a power cut; None stands for a missing file."""
    folder.mkdir()
    found: set[bytes | None] = set()
    for seed in range(40):
        image = folder / f"image-{seed}"
        disk.crash_image(image, random.Random(seed))
        path = image / name
        found.add(path.read_bytes() if path.exists() else None)
    return found


def test_a_new_file_lasts_once_it_and_its_directory_are_synced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    disk = SimulatedDisk(root)
    with disk.in_use():
        fd = os.open(root / "a", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"x", 0)
        assert {b"x", b"", b"\0", None} == survivors(disk, tmp_path / "1", "a")
        os.fsync(fd)
        assert {b"x", None} == survivors(disk, tmp_path / "2", "a")
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        assert {b"x"} == survivors(disk, tmp_path / "3", "a")
        (root / "a").unlink()
        assert {b"x", None} == survivors(disk, tmp_path / "4", "a")
        os.close(fd)
        os.close(folder)
