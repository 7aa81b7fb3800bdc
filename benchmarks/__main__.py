"""Run every benchmark and write RESULTS.md whole."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from benchmarks import bench_collector, bench_delivery, bench_micro
from benchmarks.machine import describe
from benchmarks.report import Section

RESULTS = Path(__file__).with_name("RESULTS.md")
FIGURES = Path("build/benchmarks.json")
NEEDED = ("wrk", "nginx", "taskset")
# In this order, in RESULTS.md too; the name is that of the section's figures.
BENCHMARKS = {
    "decode": bench_micro,
    "servers": bench_collector,
    "delivery": bench_delivery,
}


def main() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        sys.exit(f"benchmarks need {', '.join(missing)}: apt-get install wrk nginx util-linux")
    began_s = time.monotonic()
    sections: dict[str, Section] = {}
    for name, module in BENCHMARKS.items():
        sections[name] = module.run()
        print(f"\n({name}: {(time.monotonic() - began_s) / 60:.1f} minutes so far)\n", flush=True)
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps({name: each.figures for name, each in sections.items()}))
    write(sections)
    print(f"written: {RESULTS.relative_to(Path.cwd())}")


def write(sections: dict[str, Section]) -> None:
    """RESULTS.md, whole."""
    parts = ["# Benchmarks\n", "Written by `make bench`; every number here is from its last run.\n"]
    parts.append("\n".join(f"- {name}: {text}" for name, text in describe().items()) + "\n")
    for name, module in BENCHMARKS.items():
        parts.append(f"## {module.__doc__}\n\n{module.METHOD}\n\n{sections[name].text}\n")
    RESULTS.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
