"""Describe the machine and the versions, for the head of every report."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import distributions, version
from pathlib import Path

import pixelfast

__all__ = ["describe", "print_head"]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return f"{command[0]}: not installed"
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr).strip().splitlines()[0]


def _interpreter() -> str:
    """Return the interpreter and its build; without PGO, plain Python runs 1.7 times slower."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    built = "with PGO" if "enable-optimizations" in options else "without PGO"
    return f"Python {platform.python_version()}, built {built}"


def _rivals() -> str:
    """Return the versions of the packages in the rivals' environment."""
    folders = list((Path(sys.prefix) / "rivals").glob("lib/*/site-packages"))
    found = {
        each.name.lower(): each.version for each in distributions(path=list(map(str, folders)))
    }
    names = ("granian", "uvicorn", "blacksheep", "aiohttp", "fastapi")
    if not found:
        return "not installed: make bench"
    go = _first_line("go", "version").removeprefix("go version ")
    return ", ".join([*(f"{name} {found[name]}" for name in names), go])


def describe() -> dict[str, str]:
    """Return the machine and the versions, by name."""
    libraries = ("uvloop", "httptools", "Cython", "orjson", "aiohttp")
    cores = len(os.sched_getaffinity(0))
    return {
        "pixelfast": pixelfast.__version__,
        "machine": f"{_cpu()}, {cores} cores, Linux {platform.release()}",
        "interpreter": _interpreter(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
        "tools": ", ".join(
            [_first_line("wrk", "-v").split(" Copy")[0], _first_line("nginx", "-v")]
        ),
        "rivals": _rivals(),
        "date": time.strftime("%Y-%m-%d"),
    }


def print_head(question: str, method: str) -> None:
    """Print the question, the method and the machine."""
    print(f"{question}\n\n{method}\n")
    for name, text in describe().items():
        print(f"  {name:12} {text}")
    print(flush=True)
