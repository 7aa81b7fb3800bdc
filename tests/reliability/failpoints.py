"""kill -9 between every two steps that make something durable, on entering a system call.

A process that is killed on entering its Nth fsync has done everything before it and nothing after
it. Therefore, the calls of a table, at their first few occurrences, cover the time between all
steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.program import PIXELFAST
from tests.reliability.rig import Rig, is_gone
from tests.reliability.tracing import inject, run_until_killed
from tests.waiting import wait_until

__all__ = ["LIVE", "STARTING", "die_at", "die_starting"]

# During the start: META and directories, the first segments; the database of the cursors.
STARTING = {
    "collect": {"mkdir": 6, "link": 1, "openat": 3, "fsync": 8, "fallocate": 2, "pwrite64": 2},
    "deliver": {"mkdir": 4, "fsync": 4, "fdatasync": 6, "pwrite64": 8, "ftruncate": 3},
}
# Under load: commits, new and closed segments; cursors, files, freed disk space.
LIVE = {
    "collector-0": {
        "pwrite64": 3,
        "fdatasync": 3,
        "fallocate": 2,
        "fsync": 4,
        "ftruncate": 2,
        "rename": 2,
    },
    "delivery": {"pwrite64": 8, "fdatasync": 8, "fsync": 2, "ftruncate": 3, "rename": 2},
}
_READY = {"collect": "collector listening on", "deliver": "delivering to"}
_log_numbers = itertools.count()


def die_starting(rig: Rig, command: str, call: str, nth: int) -> bool:
    """Start only a collector or delivery and kill it at a call; return whether it reached it."""
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
    """Kill a process of the running server at a call; it is restarted."""
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
