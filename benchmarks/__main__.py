"""Run every benchmark and write RESULTS.md whole."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks import bench_collector, bench_decode, bench_delivery
from benchmarks.machine import describe

RESULTS = Path(__file__).with_name("RESULTS.md")
NEEDED = ("wrk", "nginx", "taskset")


def main() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        sys.exit(f"benchmarks need {', '.join(missing)}: apt-get install wrk nginx util-linux")
    parts = ["# Benchmarks\n", "Written by `make bench`; every number here is from its last run.\n"]
    parts.append("\n".join(f"- {name}: {text}" for name, text in describe().items()) + "\n")
    for module in (bench_decode, bench_collector, bench_delivery):
        table = module.run()
        parts.append(f"## {module.__doc__}\n\n{module.METHOD}\n\n{table}\n")
        print(flush=True)
    RESULTS.write_text("\n".join(parts))
    print(f"written: {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
