"""Start the rivals, each with one worker on one core, and check the events they stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.corpus import targets
from benchmarks.rivals.straight import KEY
from benchmarks.servers import Running, free_port, running, wait_for, worker_of
from pixelfast.commands.decode import Explainer

__all__ = ["COMMANDS", "SITE", "build_go", "check_events", "count_lines", "floor", "rival"]

ROOT = Path(__file__).parents[2]
HOME = Path(sys.prefix) / "rivals"
SITE = HOME / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
GO_PROGRAM = HOME / "bin/pixels"
EVENTS = "events.ndjson"
Command = Callable[[int], list[str]]

# As their documentation advises for speed: one worker, uvloop, httptools, no access log, and no
# parsing of headers that the handler reads itself.
_GRANIAN = [
    *(str(HOME / "bin/granian"), "--interface", "asgi", "--http", "1", "--no-ws"),
    *("--loop", "uvloop", "--runtime-mode", "st", "--no-log", "--workers", "1"),
    *("--backlog", "2048", "--host", "127.0.0.1"),
]
_UVICORN = [
    *(str(HOME / "bin/uvicorn"), "--loop", "uvloop", "--http", "httptools", "--ws", "none"),
    *("--no-access-log", "--log-level", "warning", "--no-proxy-headers", "--no-server-header"),
    *("--lifespan", "on", "--host", "127.0.0.1"),
]
_APPS = "benchmarks.rivals"
_WITH_MASTER = ("granian",)


def _uvicorn(module: str) -> Command:
    return lambda port: [*_UVICORN, "--port", str(port), f"{_APPS}.{module}:app"]


COMMANDS: dict[str, Command] = {
    "granian": lambda port: [*_GRANIAN, "--port", str(port), f"{_APPS}.asgi_app:app"],
    "uvicorn": _uvicorn("asgi_app"),
    "blacksheep": _uvicorn("blacksheep_app"),
    "aiohttp": lambda port: [str(HOME / "bin/python"), "-m", f"{_APPS}.aiohttp_app", str(port)],
    "fastapi": _uvicorn("fastapi_app"),
    "fastapi plain": _uvicorn("fastapi_plain"),
    "go": lambda port: [str(GO_PROGRAM), f"127.0.0.1:{port}"],
}


def rival(name: str) -> Callable[[Path], Any]:
    """Return a function that starts a rival in a folder."""

    @contextmanager
    def start(folder: Path) -> Iterator[Running]:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        own = {"PYTHONPATH": str(ROOT), "RIVAL_EVENTS": str(folder / EVENTS), "GOMAXPROCS": "1"}
        with running(COMMANDS[name](port), own) as process:
            wait_for(port, process)
            pid = worker_of(process.pid) if name in _WITH_MASTER else process.pid
            yield Running(pid, port, KEY)

    return start


def floor(*options: str) -> Callable[[Path], Any]:
    """Return a function that starts the event loop with a fixed response; it stores nothing."""

    @contextmanager
    def start(_: Path) -> Iterator[Running]:
        port = free_port()
        command = [sys.executable, "-m", f"{_APPS}.floor", str(port), *options]
        with running(command) as process:
            wait_for(port, process)
            yield Running(process.pid, port, KEY)

    return start


def build_go() -> bool:
    """Compile the rival in Go; return False if Go is not installed."""
    if shutil.which("go") is None:
        return False
    source = Path(__file__).with_name("pixels.go")
    environment = {**os.environ, "GOTOOLCHAIN": "local"}  # the installed Go, or none
    subprocess.run(["go", "build", "-o", GO_PROGRAM, source], env=environment, check=True)
    return True


def count_lines(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            count += chunk.count(b"\n")
    return count


def check_events(folder: Path) -> int:
    """Return how many events a rival stored; the first must equal that of pixelfast.

    Raises:
        RuntimeError: it says something else.
    """
    path = folder / EVENTS
    with path.open("rb") as file:
        line = orjson.loads(file.readline())
    explainer = Explainer(None, full=True)
    for target in targets(KEY):
        expected = orjson.loads(explainer.line(target.encode()))["event"]
        if expected["anonymousId"] == line["anonymousId"]:
            break
    made = {"messageId", "receivedAt", "originalTimestamp", "sentAt", "timestamp", "request_ip"}
    differs = [name for name in expected.keys() - made if expected[name] != line.get(name)]
    if differs or expected.keys() != line.keys():
        raise RuntimeError(f"{path} has {line}\npixelfast makes {expected}")
    return count_lines(path)
