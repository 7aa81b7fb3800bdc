"""A server, its oracle, and ways to kill its processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from tests.reliability.oracle import WRITE_KEY, Ledger, Oracle, Verdict
from tests.servers import Server
from tests.waiting import wait_until

__all__ = ["Rig", "is_gone"]

# Small segments, so that new segments are started and disk space is freed all the time, and short
# delays, so that retries follow quickly.
_SETTINGS = """
data_dir = "{data_dir}"
[server]
drain_timeout_s = 1
{server}
[spool]
segment_bytes = "{segment_bytes}"
min_free = 0
ack = "{ack}"
{spool}
[deliver]
processes = {deliveries}
[[sources]]
name = "web"
write_keys = ["{key}"]
[[destinations]]
name = "receiver"
type = "http"
url = "{url}"
start = "{start}"
max_age_s = 0.05
timeout_s = 2
connect_timeout_s = 1
retry_first_s = 0.05
retry_most_s = 0.4
{receiver}
[[destinations]]
name = "archive"
type = "file"
start = "{start}"
rotate_bytes = "128KiB"
path = "{archive_dir}"
"""


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, even if its parent has not waited for it."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class Rig:
    """One data directory, its oracle, and the server that runs on it now.

    `root` is the folder of another build of pixelfast; `url` is what delivery sends to, if not to
    the oracle itself; `deliveries` is the maximum number of delivery processes for the two
    destinations; `start` is where its destinations begin; `archive_dir` is where the file
    destination writes, if not below the data; `server`, `spool` and `receiver` are more settings of
    these sections; `passed` is a listening socket, as systemd passes it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_dir: Path | None = None,
        archive_dir: Path | None = None,
        root: Path | None = None,
        workers: int = 2,
        deliveries: int = 1,
        ack: str = "synced",
        segment_bytes: str = "128KiB",
        start: str = "earliest",
        server: str = "",
        spool: str = "",
        receiver: str = "",
        passed: socket.socket | None = None,
        **oracle: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_dir = data_dir or folder / "data"
        self.archive_dir = archive_dir or self.data_dir / "events" / "archive"
        self.oracle = Oracle(**oracle)
        self.url = ""
        self.deliveries = deliveries
        self.options = {
            "deliveries": deliveries,
            "ack": ack,
            "segment_bytes": segment_bytes,
            "start": start,
            "server": server,
            "spool": spool,
            "receiver": receiver,
        }
        self.server: Server
        self._root = root
        self._workers = workers
        self._passed = passed

    def __enter__(self) -> Self:
        self.oracle.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.oracle.__exit__)
            if hasattr(self, "server") and self.server.process.poll() is None:
                self.crash()

    @property
    def settings_path(self) -> Path:
        return self.folder / "pixelfast.toml"

    def write_settings(self) -> None:
        self.settings_path.write_text(
            _SETTINGS.format(
                data_dir=self.data_dir,
                archive_dir=self.archive_dir,
                url=self.url or self.oracle.url,
                key=WRITE_KEY,
                **self.options,
            )
        )

    def start(self) -> Server:
        """Start the server on the data of the last one, and direct the load to it."""
        self.write_settings()
        self.server = Server(
            self.data_dir,
            "-c",
            str(self.settings_path),
            "--workers",
            str(self._workers),
            root=self._root,
            log_path=self.folder / "server.log",
            passed=self._passed,
        )
        self.oracle.aim(self.server.port)
        return self.server

    def pid(self, role: str, timeout_s: float = 30.0) -> int:
        """Return the process of a role ("collector-0", "delivery") once it is running."""
        found = 0

        def look() -> bool:
            nonlocal found
            try:
                found = self.server.children()[f"pf-{role}"]
            except (KeyError, FileNotFoundError, ProcessLookupError):
                return False  # it is being started
            return not is_gone(found)

        wait_until(look, f"{role} runs", timeout_s)
        return found

    def kill(self, role: str) -> None:
        """Kill one process with SIGKILL, and wait until it has ended."""
        if role == "supervisor":
            children = list(self.server.children().values())
            self.server.kill()
            wait_until(lambda: all(map(is_gone, children)), "all processes end")
            return
        pid = self.pid(role)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), f"{role} is gone")

    def crash(self) -> None:
        """Kill all processes at once with SIGKILL."""
        pids = list(self.server.children().values())
        self.server.process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.kill()
        wait_until(lambda: all(map(is_gone, pids)), "all processes are gone")

    def take_fresh_events(self, timeout_s: float = 30.0) -> None:
        """Fail unless new events are acknowledged with 200."""
        self.oracle.resume()
        self.oracle.until_acked(20, timeout_s)
        self.oracle.pause()

    def check(self, *, files: bool = True, patience_s: float = 10.0) -> Verdict:
        """Wait for what is in progress; return the outcome at every destination."""
        self.oracle.until_received(patience_s)
        excused = list(self.dead_letters())
        total = self.oracle.judge(self.oracle.ledger, excused)
        if files:
            total += self._check_files(patience_s)
        return total

    def assert_clean(self, **options: Any) -> Verdict:
        """Assert that a new event is delivered and nothing is missing, changed or invented."""
        self.oracle.pause()
        self.take_fresh_events()
        verdict = self.check(**options)
        assert verdict.is_clean, f"{verdict}\n{self.server.log[-6000:]}"
        wait_until(self.server.check_sums, "delivery has figures")
        return verdict

    def dead_letters(self) -> Iterable[str]:
        """Return the ids of events that a destination rejected, wherever they are kept."""
        pattern = re.compile(rb"%s-\d+" % self.oracle.run.encode())
        for path in (self.data_dir / "dead").rglob("*"):
            if path.is_file():
                yield from (match.decode() for match in pattern.findall(path.read_bytes()))

    def _check_files(self, patience_s: float) -> Verdict:
        """Wait until nothing is missing in the files, or nothing was added for `patience_s`."""
        taken, latest_s = -1, time.monotonic()
        while True:
            ledger = Ledger(self.oracle.run)
            ledger.take_files(self.archive_dir, self.oracle.sent)
            verdict = self.oracle.judge(ledger)
            if taken != ledger.taken:
                taken, latest_s = ledger.taken, time.monotonic()
            if not verdict.missing or time.monotonic() - latest_s >= patience_s:
                break
            time.sleep(0.05)
        verdict.sent = verdict.acked = 0  # counted at the receiver already
        return verdict
