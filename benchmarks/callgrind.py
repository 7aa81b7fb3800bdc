"""Count the instructions of a call with valgrind; unlike times, the counts do not drift.

The same files give the same count, within 0.5 %. Any changed file moves memory: a step that it does
not touch was seen to change by 1.8 %, and the first run after it, which compiles it, differs again.

The counted process marks where a step begins and ends by calling getppid(2), which nothing else
does; callgrind writes its counts down there. It counts from `count_runs` on only: starting an
interpreter and importing would take it half a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["count_runs", "instructions", "is_there"]

_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_DUMPS = 3  # for a step: what precedes it, its runs, and twice its runs
_PATIENCE_S = 300.0


def is_there() -> bool:
    return shutil.which("valgrind") is not None and shutil.which("callgrind_control") is not None


def instructions(arguments: Sequence[str], runs: Sequence[int]) -> list[float]:
    """Return the instructions in user space of one run of each step, in all threads.

    `arguments` start a Python process that calls `count_runs` with the same steps and runs.
    """
    with tempfile.TemporaryDirectory(prefix="pixelfast-callgrind-") as folder:
        command = [
            *("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"),
            *("--dump-before=getppid", f"--callgrind-out-file={folder}/out"),
            *(sys.executable, *arguments),
        ]
        # The hashes of strings and the size of the environment change a step by 0.3 %.
        kept = ("PATH", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment["PYTHONHASHSEED"] = "0"
        subprocess.run(
            command, env=environment, stdout=subprocess.DEVNULL, timeout=_PATIENCE_S, check=True
        )
        totals = [_total(Path(folder, f"out.{n + 1}")) for n in range(_DUMPS * len(runs))]
    # The difference removes the cost of starting and ending the count.
    once, twice = totals[1::_DUMPS], totals[2::_DUMPS]
    return [(two - one) / own for one, two, own in zip(once, twice, runs, strict=True)]


def count_runs(steps: Sequence[tuple[Callable[[], object], int]]) -> None:
    """Run each step `runs` times and twice as often, in the counted process."""
    control = ["callgrind_control", "--instr=on", str(os.getpid())]
    with subprocess.Popen(control, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asked:
        while asked.poll() is None:
            pass  # valgrind reads commands only while it runs code
    if asked.returncode:
        raise RuntimeError("callgrind_control could not turn the counting on")
    for step, runs in steps:
        _repeat(step, runs)  # the interpreter specializes a loop in its first iterations
        os.getppid()
        _repeat(step, runs)
        os.getppid()
        _repeat(step, 2 * runs)
        os.getppid()


def _repeat(step: Callable[[], object], runs: int) -> None:
    for _ in range(runs):
        step()


def _total(path: Path) -> int:
    found = _TOTAL.search(path.read_text())
    assert found is not None, f"{path.name} has no total"
    return int(found[1])
