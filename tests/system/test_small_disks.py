"""The real server on disks of 64 MiB that fill up: pixels, the archive, and the log."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.servers import Server, serving
from tests.waiting import wait_until

MIB = 2**20
DISK_BYTES = 64 * MIB
PADDING = "x" * 24_000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount file systems")

SETTINGS = """
[server]
workers = 1
[log]
format = "json"
[spool]
max_bytes = "12MiB"
segment_bytes = "1MiB"
min_free = "{min_free}"
[[sources]]
name = "web"
write_keys = ["wk-web"]
[[destinations]]
name = "archive"
type = "file"
rotate_bytes = "2MiB"
{archive}
"""


def mount(kind: str, folder: Path, image: Path) -> None:
    if kind == "ext4":
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("needs mkfs.ext4 of e2fsprogs")
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(folder)]
    else:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount file systems: {done.stderr.strip()}")


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB, of the type in the parameter, by default a tmpfs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(getattr(request, "param", "tmpfs"), folder, tmp_path / "image")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Pixels:
    """Sends pixels of 24 KB, eight at a time, and records which were acknowledged with 200."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ids = (f"e{n}" for n in itertools.count())
        self.acked: list[str] = []

    def send(self, count: int = 8) -> set[str]:
        """Send some pixels; return the reasons for those that were rejected."""
        ids = list(itertools.islice(self._ids, count))
        key = self._server.write_key
        requests = [
            f"GET /pixel/v1/track?writeKey={key}&anonymousId=a&event={each}&properties.p={PADDING}"
            " HTTP/1.1\r\nHost: t\r\n\r\n"
            for each in ids
        ]
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=20) as connection:
            connection.sendall("".join(requests).encode())
            responses = b""
            while responses.count(b"HTTP/1.1 ") < count or not responses.endswith(b";"):
                chunk = connection.recv(65536)
                assert chunk, "the server closed the connection"
                responses += chunk
        heads = responses.split(b"HTTP/1.1 ")[1:]
        reasons = set()
        for one, head in zip(ids, heads, strict=True):
            reason = re.search(rb"X-Pixelfast-Error: (\S+)", head)
            if reason is None:
                assert head.startswith(b"200 ")
                self.acked.append(one)
            else:
                assert head.startswith(b"503 ")
                reasons.add(reason[1].decode())
        return reasons

    def send_until(self, is_so: Callable[[set[str]], object], what: str) -> None:
        """Send until `is_so` is true of the reasons for the last rejections."""
        wait_until(lambda: is_so(self.send()), what, 60)


def archive_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def look() -> bool:
        try:
            state = json.loads(server.admin("/health/ready"))
        except HTTPError as error:  # 503: pixels are not stored
            state = json.loads(error.read())
        found.update(state["destinations"].get("archive", {}))
        return "pending" in found

    wait_until(look, "delivery reports")
    return found


def is_full(server: Server, reasons: set[str]) -> bool:
    """Whether pixels are rejected because most of the spool's 12 MiB are not delivered."""
    pending = archive_of(server)["pending"]
    return reasons == {"spool-full"} and pending > 10 * MIB // len(PADDING)


def is_newest_in(archive: Path, pixels: Pixels) -> bool:
    """Whether the newest event that was stored is at the end of the archive."""
    newest = pixels.acked[-1].encode()
    for path in sorted(archive.glob("*.ndjson"))[-2:]:
        with contextlib.suppress(FileNotFoundError):  # deleted after it was listed
            if newest in path.read_bytes():
                return True
    return False


def events_in(*folders: Path) -> list[str]:
    """Return the events in complete lines, in alphabetical order."""
    texts = [path.read_bytes() for folder in folders for path in folder.glob("*.ndjson")]
    lines = [line for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return sorted(json.loads(line)["event"] for line in lines)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def assert_quiet(server: Server) -> None:
    assert "Traceback" not in server.log
    assert [] == [each for each in server.log.splitlines() if '"exception"' in each]


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_an_archive_waits_at_half_of_the_disk_and_pixels_are_stored_until_the_spool_is_full(
    disk: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.format(min_free="4MiB", archive="")
    log_path, aside = tmp_path / "server.log", tmp_path / "aside"
    archive = disk / "data" / "events" / "archive"
    with serving(disk / "data", settings=settings, log_path=log_path) as server:
        pixels = Pixels(server)
        pixels.send_until(lambda _: "destination_waiting" in server.log_events(), "it waits")
        file_system = os.statvfs(disk)
        half = file_system.f_blocks * file_system.f_frsize // 2
        assert half - 5 * MIB < size_of(archive) <= half
        pixels.send_until(lambda reasons: is_full(server, reasons), "the spool is full")
        assert size_of(archive) <= half
        state = archive_of(server)
        assert ("waiting", 0) == (state["state"], state["failures"])
        assert "max_disk_share" in state["last_error"]
        assert 1 == server.metrics_of("pixelfast_destination_state", state="waiting")
        assert state["archive_bytes"] == pytest.approx(size_of(archive), rel=0.01)
        assert state["archive_limit_bytes"] == half
        # An operator moves the finished files away.
        aside.mkdir()
        for path in sorted(archive.glob("*.ndjson"))[:-1]:
            shutil.move(path, aside)
        wait_until(lambda: archive_of(server)["pending"] == 0, "it continues")
        pixels.send_until(lambda reasons: not reasons, "pixels are stored again")
        wait_until(lambda: sorted(pixels.acked) == events_in(archive, aside), "all are there")
        told = server.log_events()
        names = ("destination_waiting", "destination_space_freed", "delivery_failed")
        assert [1, 1, 0] == [told.count(name) for name in names]
        assert {"spool_full", "spool_space_freed"} <= set(told)
        assert_quiet(server)


def test_an_archive_leaves_space_for_the_spool_on_a_disk_that_others_fill(
    disk: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.format(min_free="4MiB", archive="")
    (disk / "others").write_bytes(bytes(34 * MIB))
    archive = disk / "data" / "events" / "archive"
    with serving(disk / "data", settings=settings, log_path=tmp_path / "server.log") as server:
        pixels = Pixels(server)
        pixels.send_until(lambda _: "destination_waiting" in server.log_events(), "it waits")
        assert 7 * MIB < size_of(archive) < 14 * MIB
        pixels.send_until(lambda reasons: is_full(server, reasons), "the spool is full")
        (disk / "others").unlink()
        wait_until(lambda: archive_of(server)["pending"] == 0, "it continues")
        assert sorted(pixels.acked) == events_in(archive)
        assert_quiet(server)


def test_less_than_min_free_is_disk_full_until_there_is_more(disk: Path, tmp_path: Path) -> None:
    settings = SETTINGS.format(min_free="8MiB", archive="")
    with serving(disk / "data", settings=settings, log_path=tmp_path / "server.log") as server:
        pixels = Pixels(server)
        assert set() == pixels.send()
        # Nothing is sent before the disk was measured: pixels could use the last space by then.
        (disk / "others").write_bytes(bytes(55 * MIB))
        wait_until(lambda: "disk_full" in server.log_events(), "the disk is full")
        assert {"disk-full"} == pixels.send()
        (disk / "others").unlink()
        wait_until(lambda: "spool_space_freed" in server.log_events(), "there is disk space")
        assert set() == pixels.send()
        told = server.log_events()
        # The first cause, less than min_free or no space for a segment, is logged once.
        for name in ("disk_full", "segment_create_failed"):
            assert told.count(name) <= 1, name
        assert {"disk_full", "segment_create_failed"} & set(told)
        assert "spool_full" not in told
        name, reason = "pixelfast_rejected_requests_total", "disk-full"
        # A collector reports its figures once a second.
        wait_until(
            lambda: server.metrics_of(name, reason=reason) >= 8, "the rejections are counted"
        )
        assert_quiet(server)


def test_a_full_disk_loses_no_event_and_logs_one_line_for_each_cause(
    disk: Path, tmp_path: Path
) -> None:
    """`min_free = 0`, and another program takes the last block."""
    settings = SETTINGS.format(min_free="0B", archive="")
    archive = disk / "data" / "events" / "archive"
    with serving(disk / "data", settings=settings, log_path=tmp_path / "server.log") as server:
        pixels = Pixels(server)
        assert set() == pixels.send()
        others = disk / "others"
        with contextlib.suppress(OSError), others.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        pixels.send_until(lambda reasons: reasons == {"disk-full"}, "the disk is full")
        wait_until(lambda: archive_of(server)["state"] != "closed", "the archive is full")
        others.unlink()
        pixels.send_until(lambda reasons: not reasons, "there is disk space")
        wait_until(lambda: set(pixels.acked) <= set(events_in(archive)), "all are there")
        told = server.log_events()
        for name in ("segment_create_failed", "destination_waiting", "destination_failed"):
            assert told.count(name) <= 1, name
        assert "segment_create_failed" in told
        assert_quiet(server)


def test_with_keep_bytes_the_oldest_files_are_deleted_and_nothing_waits(
    disk: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.format(min_free="4MiB", archive='keep_bytes = "8MiB"')
    archive = disk / "data" / "events" / "archive"
    with serving(disk / "data", settings=settings, log_path=tmp_path / "server.log") as server:
        pixels = Pixels(server)
        for number in range(2 * DISK_BYTES // (8 * len(PADDING))):
            pixels.send_until(lambda reasons: not reasons, "pixels are stored")
            if (
                number % 40 == 0
            ):  # not faster than files are deleted, because the spool also uses space
                wait_until(lambda: is_newest_in(archive, pixels), "delivery has caught up")
        wait_until(lambda: is_newest_in(archive, pixels), "all are there")
        wait_until(lambda: size_of(archive) <= 8 * MIB, "the oldest are deleted")
        kept = events_in(archive)
        assert set(pixels.acked[-len(kept) :]) == set(kept)
        assert len(kept) > 4 * MIB // len(PADDING)
        wait_until(lambda: archive_of(server)["archive_deleted_files"] > 20, "they are counted")
        assert "archive_deleted" in server.log_events()
        assert "destination_waiting" not in server.log_events()
        assert_quiet(server)
