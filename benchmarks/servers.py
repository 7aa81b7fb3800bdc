"""The servers that are measured, each one process pinned to one core."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.wrk import SERVER_CORE
from pixelfast.spool import DataDir, Position, SlotReader

__all__ = [
    "Running",
    "Serving",
    "collector",
    "nginx",
    "running",
    "serving",
    "stored_events",
    "worker_of",
]

START_S = 20.0
SETTLE_S = 1.5  # delivery imports its libraries and opens its files


class Running(NamedTuple):
    """A server that accepts connections."""

    pid: int
    port: int
    write_key: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: Callable[[], bool], what: str, patience_s: float = START_S) -> None:
    """Poll until a condition of another process is true.

    Raises:
        RuntimeError: it is not so after `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {patience_s:.0f} s: not {what}")
        time.sleep(0.02)  # often enough without loading the measured core


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process accepts connections."""

    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended before it listened at port {port}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, f"listening at port {port}: {process.args!r}")


@contextmanager
def running(
    command: list[str],
    environment: dict[str, str] | None = None,
    *,
    cores: str = str(SERVER_CORE),
) -> Iterator[subprocess.Popen[bytes]]:
    pinned = ["taskset", "-c", cores, *command]
    own = {**os.environ, **(environment or {})}
    process = subprocess.Popen(pinned, stdout=subprocess.DEVNULL, env=own)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def worker_of(pid: int) -> int:
    """Return the process that serves: the youngest child of a master, as soon as it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.read_text().split()), f"a worker of process {pid}")
    return int(children.read_text().split()[-1])


@contextmanager
def collector(folder: Path, *settings: str) -> Iterator[Running]:
    """Run `pixelfast collect`, which syncs each event before it sends the GIF."""
    port = free_port()
    command = [sys.executable, "-m", "pixelfast", "collect", "--data-dir", str(folder)]
    with running([*command, "--listen", f"127.0.0.1:{port}", *settings]) as process:
        wait_for(port, process)
        key = folder / "demo-write-key"  # absent if `settings` name sources
        yield Running(process.pid, port, key.read_text().strip() if key.exists() else "")


class Serving(NamedTuple):
    """A running `pixelfast serve`: the process id of each process by its name."""

    port: int
    pids: dict[str, int]

    @property
    def delivery(self) -> int:
        return self.pids["pf-delivery"]


_SERVE = """
data_dir = "{data}"
log.level = "warning"
[server]
listen = ["127.0.0.1:{port}"]
admin = ""
workers = {workers}
[[sources]]
name = "demo"
write_keys = ["wk-demo"]
[[destinations]]
name = "live"
"""


@contextmanager
def serving(
    folder: Path, destination: str, workers: int = 1, *, cores: str = str(SERVER_CORE)
) -> Iterator[Serving]:
    """Run `pixelfast serve` with one destination, whose settings are `destination`.

    The data directory is `data` in `folder`, the write key is `wk-demo`.
    """
    port = free_port()
    settings = folder / "pixelfast.toml"
    settings.write_text(
        _SERVE.format(data=folder / "data", port=port, workers=workers) + destination
    )
    command = [sys.executable, "-m", "pixelfast", "serve", "-c", str(settings)]
    with running(command, cores=cores) as process:
        wait_for(port, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = {"supervisor": process.pid}

        def all_run() -> bool:
            for pid in children.read_text().split():
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name.startswith("pf-"):
                    pids[name] = int(pid)
            return len(pids) == workers + 2

        wait_until(all_run, "all processes of pixelfast running")
        time.sleep(SETTLE_S)  # what the processes do at their start must not be measured
        yield Serving(port, pids)


_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/access.log combined buffer=64k;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ empty_gif; }} }}
}}
"""


@contextmanager
def nginx(folder: Path) -> Iterator[Running]:
    """Run nginx, which sends a GIF from memory and writes a line to a buffered log."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with running([program, "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        wait_for(port, process)
        yield Running(worker_of(process.pid), port, "wk-demo")


def stored_events(folder: Path) -> int:
    """Return the number of events in the spool; each frame and its checksum is read."""
    data = DataDir.open(folder)
    count = 0
    for slot in data.slots():
        reader = SlotReader(data, slot, Position())
        while frames := reader.read():
            count += sum(frame.events for frame in frames)
        reader.close()
    return count
