"""Run every benchmark and write RESULTS.md."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import (
    bench_cluster,
    bench_delivery,
    bench_everything,
    bench_first_run,
    bench_hostile,
    bench_kafka,
    bench_kinds,
    bench_latency,
    bench_live,
    bench_memory,
    bench_micro,
    bench_object_stores,
    bench_postgres,
    bench_scaling,
    bench_servers,
    readme_plot,
)
from benchmarks.goals import goals
from benchmarks.machine import describe
from benchmarks.plots import draw
from benchmarks.report import Section

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTIONS = Path("build/benchmarks")
FIGURES = Path("build/benchmarks.json")
NEEDED = ("wrk", "nginx", "taskset")
# In this order, also in RESULTS.md; the name is that of the section's figures.
BENCHMARKS: dict[str, Any] = {
    "servers": bench_servers,
    "everything": bench_everything,
    "latency": bench_latency,
    "decode": bench_micro,
    "kinds": bench_kinds,
    "delivery": bench_delivery,
    "kafka": bench_kafka,
    "cluster": bench_cluster,
    "object_stores": bench_object_stores,
    "postgres": bench_postgres,
    "live": bench_live,
    "hostile": bench_hostile,
    "scaling": bench_scaling,
    "memory": bench_memory,
    "first_run": bench_first_run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(BENCHMARKS)}; else all")
    only = parser.parse_args().only or list(BENCHMARKS)
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        sys.exit(f"benchmarks need {', '.join(missing)}: apt-get install wrk nginx util-linux")
    began_s = time.monotonic()
    SECTIONS.mkdir(parents=True, exist_ok=True)
    for name in only:
        section: Section = BENCHMARKS[name].run()
        (SECTIONS / f"{name}.json").write_text(json.dumps(section))
        print(f"\n({name}: {(time.monotonic() - began_s) / 60:.1f} minutes so far)\n", flush=True)
    if only == list(BENCHMARKS):
        write()
        print(f"written: {RESULTS.relative_to(Path.cwd())}")


def write() -> None:
    """Write RESULTS.md."""
    sections = {
        name: Section(*json.loads((SECTIONS / f"{name}.json").read_text())) for name in BENCHMARKS
    }
    figures = {name: each.figures for name, each in sections.items()}
    FIGURES.write_text(json.dumps(figures))
    parts = ["# Benchmarks\n", "Written by the last run of `make bench`.\n"]
    parts.append("\n".join(f"- {name}: {text}" for name, text in describe().items()) + "\n")
    parts.append(f"## The goals\n\n{goals(figures)}\n")
    parts += [f"![{path.stem}]({path.relative_to(RESULTS.parent)})\n" for path in draw(figures)]
    for name, module in BENCHMARKS.items():
        title = module.__doc__.rstrip(".")
        parts.append(f"## {title}\n\n{module.METHOD}\n\n{sections[name].text}\n")
    RESULTS.write_text("\n".join(parts))
    readme_plot.draw()


if __name__ == "__main__":
    main()
