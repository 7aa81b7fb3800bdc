"""The log of a day with a full or damaged disk has only a few lines and no traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import serving
from tests.waiting import wait_until

SETTINGS = """
[spool]
segment_bytes = "1MiB"
min_free = "1MiB"
[[sources]]
name = "web"
write_keys = ["wk-web-full"]
[[destinations]]
name = "archive"
type = "file"
[[destinations]]
name = "second"
type = "file"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_a_few_lines_without_a_traceback(tmp_path: Path, disk: Path) -> None:
    log_path = tmp_path / "log"
    options = {"settings": SETTINGS, "log_path": log_path}
    with serving(disk / "data", "--workers", "1", **options) as server:
        assert 200 == server.track("before")
        fill(disk / "filler")
        wait_until(lambda: server.track("full") == 503, "a pixel that is rejected")
        wait_until(lambda: "destination_failed" in server.log_events(), "a destination that fails")
        for _ in range(50):
            server.track("full")
        (disk / "filler").unlink()
        wait_until(lambda: server.track("after") == 200, "room")
        wait_until(
            lambda: (
                server.events("second")[-1:] and server.events("second")[-1]["event"] == "after"
            ),
            "delivery",
        )
        assert 0 == server.stop()
    assert "Traceback" not in server.log
    counts = Counter(server.log_events())
    assert counts["destination_failed"] <= 2 * 2  # by two destinations, which may fail in two ways
    assert 1 <= counts["pixel_rejected"] <= 4
    assert len(server.log.splitlines()) < 40


def test_a_process_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as server:
        meta = server.data_dir / "META"
        content = meta.read_bytes()
        meta.write_bytes(b"x")
        os.kill(server.children()["pf-collector-0"], signal.SIGKILL)
        wait_until(lambda: "process_failed" in server.log_events(), "a start that fails")
        meta.write_bytes(content)
        wait_until(lambda: server.track("after") == 200, "a start that does not")
    assert "Traceback" not in server.log
    failed = [line for line in server.log.splitlines() if '"process_failed"' in line]
    assert f'"error": "{server.data_dir}/META is damaged: ' in failed[0]
