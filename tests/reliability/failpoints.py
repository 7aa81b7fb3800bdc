"""kill -9 on entering the system calls that make something durable: between every two such steps.

A process that is killed on entering its Nth fsync has done all that comes before it and nothing
that comes after; so the calls of a table, each at its first few times, cut between all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.program import PIXELFAST
from tests.reliability.rig import Rig, is_gone
from tests.reliability.tracing import inject, run_until_killed
from tests.waiting import wait_until

__all__ = ["LIVE", "STARTING", "die_at", "die_starting"]

# While it starts: META and directories, the first segments; the cursors' database.
STARTING = {
    "collect": {"mkdir": 6, "link": 1, "openat": 3, "fsync": 8, "fallocate": 2, "pwrite64": 2},
    "deliver": {"mkdir": 4, "fsync": 4, "fdatasync": 6, "pwrite64": 8, "ftruncate": 3},
}
# Under load: commits, new segments and those left behind; cursors, files, room given back.
LIVE = {
    "collector-0": {"pwrite64": 3, "fdatasync": 3, "fallocate": 2, "fsync": 4, "ftruncate": 2},
    "delivery": {"pwrite64": 8, "fdatasync": 8, "fsync": 2, "ftruncate": 3, "unlink": 2},
}
_READY = {"collect": "collector listening on", "deliver": "delivering to"}
_log_numbers = itertools.count()


def die_starting(rig: Rig, command: str, call: str, nth: int) -> bool:
    """Start a collector or delivery alone and kill it at a call; whether it got that far."""
    rig.write_settings()
    listen = ["--listen", "127.0.0.1:0"] if command == "collect" else []
    return run_until_killed(
        [*PIXELFAST, command, "-c", str(rig.settings_path), *listen],
        rig.folder / f"strace-start-{next(_log_numbers)}.log",
        call,
        nth,
        _READY[command],
    )


def die_at(rig: Rig, role: str, call: str, nth: int) -> None:
    """Kill a process of the running server at a call; another one takes its place."""
    pid = rig.pid(role)
    log = rig.folder / f"strace-live-{next(_log_numbers)}.log"
    with inject(pid, log, f"{call}:signal=SIGKILL:when={nth}"):
        wait_until(lambda: is_gone(pid), f"{role} comes to {call} number {nth}")
    rig.pid(role)


def steps(table: dict[str, dict[str, int]]) -> Iterator[tuple[str, str, int]]:
    for who, calls in table.items():
        for call, times in calls.items():
            for nth in range(1, times + 1):
                yield who, call, nth
