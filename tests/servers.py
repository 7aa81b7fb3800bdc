"""Run a real `pixelfast serve` on free ports, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.logs import check_log
from tests.program import PIXELFAST
from tests.waiting import wait_until

_PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
START_S = 60.0  # limits at which a test fails, not times that it waits
STOP_S = 60.0


class Server:
    """One running server.

    Args:
        settings: the contents of its settings file; without one it has the demo source.
        root: the folder that contains the `pixelfast` package to run; default: the checkout.
        log_path: the file for standard error; default: a file beside the data.
        open_files: the limit of descriptors of each of its processes.
        limit: an option of prlimit.
        passed: a listening socket that is passed in the way of systemd.
        has_own_address: whether `settings` contain the listening address.
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        settings: str = "",
        environment: dict[str, str] | None = None,
        root: Path | None = None,
        log_path: Path | None = None,
        open_files: int = 0,
        limit: str = "",
        passed: socket.socket | None = None,
        has_own_address: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self._settings = settings
        self.log_path = log_path or data_dir.parent / f"{data_dir.name}.log"
        command = [*PIXELFAST, "serve", "--data-dir", str(data_dir)]
        if settings:
            settings_path = data_dir.parent / f"{data_dir.name}.toml"
            settings_path.write_text(settings)
            command += ["-c", str(settings_path)]
        if open_files:
            limit = f"--nofile={open_files}"
        if limit:
            command = ["prlimit", limit, *command]
        if passed is not None:
            command = [sys.executable, "-c", _PASS_SOCKET, str(passed.fileno()), *command]
        for option in ("--admin",) if has_own_address else ("--listen", "--admin"):
            if option not in arguments:
                arguments = (*arguments, option, "127.0.0.1:0")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {})},
                cwd=root,  # `python -m` looks there first
                pass_fds=() if passed is None else (passed.fileno(),),
            )
        self.welcome = self._read_welcome()
        match = re.search(r"on (?:127\S+?|\[::\]):(\d+)", self.welcome)
        self.port = int(match[1]) if match else 0
        admin = re.search(r"health\s+http://127\.0\.0\.1:(\d+)/", self.welcome)
        self.admin_port = int(admin[1]) if admin else 0
        key = re.search(r"writeKey=(\w[\w-]*)", self.welcome)
        self.write_key = key[1] if key else _first_write_key(settings)

    def _read_welcome(self) -> str:
        assert self.process.stdout is not None
        output = b""
        deadline = time.monotonic() + START_S
        while b"stop     Ctrl-C" not in output:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                self.kill()
                raise AssertionError(f"the server did not start:\n{output.decode()}\n{self.log}")
            output += chunk
        return output.decode()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, target: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection._encode_request = str.encode  # type: ignore[attr-defined] # send raw UTF-8
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response

    def track(self, event: str, more: str = "") -> int:
        key = self.write_key
        return self.get(f"/pixel/v1/track?writeKey={key}&anonymousId=a&event={event}{more}").status

    def admin(self, path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.admin_port}{path}", timeout=20
        ) as response:
            return response.read().decode()

    def metrics(self) -> dict[str, float]:
        """Return the sum of each metric over its labels."""
        sums: dict[str, float] = {}
        for line in self.admin("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def metrics_of(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.admin("/metrics").splitlines()
        samples = [each for each in lines if each.startswith(f"{name}{{")]
        found = [each for each in samples if all(label in each for label in wanted)]
        return sum(float(each.rpartition(" ")[2]) for each in found)

    def check_sums(self) -> dict[str, dict[str, float]]:
        """Check that every event has an outcome, and return the figures of each destination."""
        found: dict[str, dict[str, float]] = {}
        sample = re.compile(r'pixelfast_(\w+?)(?:_total)?\{destination="([^"]+)"\} (\S+)')

        def are_known() -> bool:  # metrics are incomplete at first
            found.clear()
            metrics = self.admin("/metrics")
            present = re.findall(r'pixelfast_destination_state\{destination="([^"]+)"', metrics)
            for name, destination, value in sample.findall(metrics):
                if destination in present:  # others were removed from the settings
                    found.setdefault(destination, {})[name] = float(value)
            return all("destination_stored_events" in own for own in found.values())

        wait_until(are_known, "the figures of all destinations")
        parts = ("delivered", "dead", "filtered", "expired", "pending", "missing")
        for destination, own in found.items():
            accounted = own["destination_stored_events"] + own["repeated_events"]
            assert accounted == sum(own[f"{part}_events"] for part in parts), (destination, own)
        return found

    def events(self, destination: str = "archive") -> list[dict[str, Any]]:
        """Return the events in a file destination; fail if a line is incomplete."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.data_dir / "events" / destination).glob("*.ndjson")):
            data = path.read_bytes()
            found += [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
        return found

    def wait_for_events(self, count: int, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Wait for at least `count` events and return them."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.events()
            return len(found) >= count

        try:
            wait_until(look, f"{count} events", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {len(found)}:\n{self.log}") from None
        return found

    def children(self) -> dict[str, int]:
        """Return the process ids by role, from the kernel."""
        found: dict[str, int] = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in children.split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                found[Path(f"/proc/{pid}/comm").read_text().strip()] = int(pid)
        return found

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def log_events(self) -> list[str]:
        """Return the names of the logged events in order."""
        return [json.loads(line)["event"] for line in self.log.splitlines() if line[:1] == "{"]

    def kill(self) -> int:
        """Kill the supervisor with SIGKILL; its processes notice that and end by themselves."""
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        """Wait until a stopping server ends and return its exit code."""
        try:
            code = self.process.wait(STOP_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
        check_log(self.log, self._settings, self.data_dir)
        return code


def _first_write_key(settings: str) -> str:
    sources = tomllib.loads(settings).get("sources", [])
    return sources[0]["write_keys"][0] if sources else ""


@contextmanager
def serving(data_dir: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """Run a server until the `with` block ends."""
    server = Server(data_dir, *arguments, **options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
