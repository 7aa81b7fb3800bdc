"""strace in a live process: system calls fail, or kill their process, on request.

Its log is checked, too: `synced_again` finds segments that were written or synced after a failure,
which no result of a test would show, because the kernel only pretends to fail.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.reliability.rig import is_gone
from tests.waiting import wait_until

__all__ = ["Trace", "inject", "run_until_killed", "synced_again", "why_no_strace"]

# Calls that are traced, so that the log shows what followed a failure.
_WATCHED = "pwrite64,fdatasync,fsync,ftruncate,fallocate,openat,unlink,rename,link,mkdir"
_CALL = re.compile(r"^(\d+) +(\w+)\((?:(\d+)<([^>]*)>)?")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")


class Trace:
    """A running strace."""

    def __init__(self, log: Path) -> None:
        self.log = log

    @property
    def hits(self) -> int:
        """Return how many system calls were made to fail so far."""
        return self.log.read_text(errors="replace").count("(INJECTED)") if self.log.exists() else 0

    def until_hit(self, count: int = 1, timeout_s: float = 15.0) -> None:
        wait_until(lambda: self.hits >= count, f"{count} injected failures", timeout_s)


def run_until_killed(command: list[str], log: Path, call: str, nth: int, ready: str) -> bool:
    """Start a program that is killed on entering a thread's `nth` call; return whether it was.

    If it prints `ready` instead, it is asked to end.
    """
    process = subprocess.Popen(
        [
            *["strace", "-f", "-qq", "-o", str(log), f"-etrace={call}"],
            *[f"-einject={call}:signal=SIGKILL:when={nth}", *command],
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
        if said.startswith(ready):
            # strace's only child is the program; when it ends, strace ends, too.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for pid in children.split():
                os.kill(int(pid), signal.SIGTERM)
    process.wait(30)
    return "killed by SIGKILL" in log.read_text()


@contextmanager
def inject(pid: int, log: Path, *injections: str) -> Iterator[Trace]:
    """Trace a process and all its threads with these `-e inject=…`, within a `with` block."""
    command = ["strace", "-f", "-y", "-qq", "-o", str(log), "-p", str(pid), f"-etrace={_WATCHED}"]
    strace = subprocess.Popen(
        [*command, *(f"-einject={each}" for each in injections)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: strace.poll() is not None or _is_traced(pid), "strace is attached")
        yield Trace(log)
    finally:
        if is_gone(pid):
            strace.kill()  # it may not notice that the last thread is gone
        else:
            strace.send_signal(signal.SIGINT)  # it detaches from the process and ends
        try:
            strace.wait(5)
        except subprocess.TimeoutExpired:
            strace.kill()
            strace.wait()


def _is_traced(pid: int) -> bool:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        states = [(task / "status").read_text() for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return is_gone(pid)
    return all("TracerPid:\t0\n" not in state for state in states)


def synced_again(log: str, ending: str = ".seg") -> list[str]:
    """Return the calls on files for which a write or sync had failed before.

    The kernel counts the dirty pages of such a file as clean, so the result of a later sync means
    nothing.
    """
    failed: set[str] = set()
    under_way: dict[str, tuple[str, str]] = {}
    found: list[str] = []
    for line in log.splitlines():
        if match := _CALL.match(line):
            thread, call, path = match[1], match[2], match[4] or ""
            if path in failed and call in {"pwrite64", "fdatasync", "fsync"}:
                found.append(line)
            if "<unfinished" in line:
                under_way[thread] = (call, path)
                continue
        elif match := _RESUMED.match(line):
            call, path = under_way.pop(match[1], ("", ""))
        else:
            continue
        is_sync = call in {"pwrite64", "fdatasync"}
        if is_sync and path.endswith(ending) and re.search(r"= -1 E(?!INTR)", line):
            failed.add(path)
    return found


@cache
def why_no_strace() -> str:
    """Return why system calls cannot be made to fail here, or "" if they can."""
    if not shutil.which("strace"):
        return "needs strace"
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with tempfile.TemporaryDirectory() as folder, inject(sleeper.pid, Path(folder) / "log"):
            is_traced = _is_traced(sleeper.pid)
    except AssertionError:
        is_traced = False
    finally:
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()
    return "" if is_traced else "strace may not attach to processes here"
