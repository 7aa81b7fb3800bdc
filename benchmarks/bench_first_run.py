"""Time of `make run` in a fresh clone until the first response."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.servers import free_port

__all__ = ["run"]

METHOD = """\
`make run` runs in a fresh clone of the last commit, without a .venv, and may use all cores. The
time ends with the 200 of the first pixel, whose event is on disk. In the first run of each round,
pip has an empty cache and fetches every package; in the second run it finds them in its cache.
All columns count from the start. The packages are installed while the modules are compiled. The
figures are medians, with the minimum and the maximum in parentheses."""

PATIENCE_S = 600.0
ROOT = Path(__file__).resolve().parent.parent


class FirstRun(NamedTuple):
    """The seconds from the start of `make run` until each step was complete."""

    tools_s: float  # setuptools and Cython are installed
    packages_s: float  # all packages are installed
    compiled_s: float
    first_response_s: float


_SETTINGS = """
data_dir = "{data}"
[server]
listen = ["127.0.0.1:{port}"]
admin = ""
"""


def first_run(cache: Path) -> FirstRun:
    """Run `make run` in a fresh clone; pip's cache is in the folder `cache`."""
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        clone = Path(place) / "pixelfast"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        settings, data, port = Path(place) / "pixelfast.toml", Path(place) / "data", free_port()
        settings.write_text(_SETTINGS.format(data=data, port=port))
        environment = {**os.environ, "PIP_CACHE_DIR": str(cache)}
        began_s, began_wall_s = time.monotonic(), time.time()
        with (Path(place) / "log").open("w+b") as log:
            process = subprocess.Popen(
                ["make", "run", f"ARGS=-c {settings}"],
                cwd=clone,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while not _responds(port, data / "demo-write-key"):
                    if process.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
                        log.seek(0)
                        raise RuntimeError(f"`make run` did not respond:\n{log.read().decode()}")
                    time.sleep(0.01)  # the program is another process: poll its port
                took_s = time.monotonic() - began_s
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
        tools_s, packages_s, compiled_s = (
            (clone / ".venv" / name).stat().st_mtime - began_wall_s
            for name in (".tools", ".installed", ".compiled")
        )
        return FirstRun(tools_s, packages_s, compiled_s, took_s)


def _responds(port: int, key: Path) -> bool:
    """Send a pixel with the write key of the demo source; return whether the response is 200."""
    if not key.exists() or not (write_key := key.read_text().strip()):
        return False
    target = f"/pixel/v1/page?writeKey={write_key}&anonymousId=a"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def run(rounds: int = 2) -> Section:
    """Measure, and print each result at once; the figures are seconds by round."""
    print_head(__doc__ or "", METHOD)
    found: dict[str, list[FirstRun]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory(prefix="pixelfast-bench-") as place:
        cache = Path(place) / "pip"
        for number in range(rounds):
            shutil.rmtree(cache, ignore_errors=True)
            for name, own in found.items():
                own.append(first_run(cache))
                print(f"  round {number + 1} {name}: {own[-1]}", flush=True)
    head = "pip's cache, tools installed s, packages installed s, compiled s, first response s"
    rows = [
        (
            "empty" if name == "cold" else "filled",
            *(spread(step, 1) for step in zip(*own, strict=True)),
        )
        for name, own in found.items()
    ]
    text = table(head.split(", "), rows)
    print(f"\n{text}")
    return Section(
        text, {name: [each.first_response_s for each in own] for name, own in found.items()}
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    run(parser.parse_args().rounds)
