"""Cost of each step of an event."""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks import callgrind
from benchmarks.machine import print_head
from benchmarks.report import Section, spread, table
from benchmarks.steps import Step, open_steps
from benchmarks.wrk import SERVER_CORE

__all__ = ["run"]

METHOD = """\
One process on one core, without network: the documented track URL, and the 1,000 pixels of the
load in turn. A call processes one event, one request or one commit, as the step states. Requests
arrive on 64 connections, and after each turn of 64 everything that arrived is sealed and gets its
response; the transport and the disk are simulated. Commits write to a real file. The figures are
microseconds of process CPU time (user and system, all threads) per call, without the call of the
measuring function itself: medians of 9 rounds of about 0.1 s, in which the steps take turns, with
the minimum and the maximum in parentheses. Instructions are those of one call in user space,
counted by valgrind (callgrind) in another process as the difference between N and 2 N runs. The
same files give the same count within 0.5 %. A changed file, or a step counted by itself
(`--step`), moves memory, and differences of up to 2 % are not significant."""

ROUND_S = 0.1
NOT_COUNTED = "\N{EN DASH}"
_EMPTY = Step("", lambda: None, 1, 1000)


def run(rounds: int = 9, only: str | None = None) -> Section:
    """Measure and print; the figures are µs by step and round, and instructions by step."""
    print_head(__doc__ or "", METHOD)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        with open_steps() as steps:
            steps = _chosen(steps, only)
            times = _times(steps, rounds)
        instructions = _instructions(steps, only)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    rows = [
        (name, spread(own), f"{instructions[name]:,.0f}" if instructions else NOT_COUNTED)
        for name, own in times.items()
    ]
    text = table(("step", "CPU µs a call", "instructions"), rows)
    if not instructions:
        text += "\n\nInstructions are counted where valgrind is installed."
    print(text)
    figures: dict[str, Any] = {**times, "instructions": instructions}
    return Section(text, figures)


def _chosen(steps: list[Step], only: str | None) -> list[Step]:
    chosen = [step for step in steps if only in (None, step.name)]
    if not chosen:
        raise SystemExit(f"no such step; there are: {', '.join(step.name for step in steps)}")
    return chosen


def _times(steps: list[Step], rounds: int) -> dict[str, list[float]]:
    """Return the CPU time of a call in µs, by step and round."""
    # As a collector does after its start.
    gc.collect()
    gc.freeze()
    runs = {step: _runs_of_a_round(step.run) for step in (_EMPTY, *steps)}
    times: dict[str, list[float]] = {step.name: [] for step in steps}
    for _ in range(rounds):
        empty_us = _cpu_us(_EMPTY.run, runs[_EMPTY])
        for step in steps:
            own_us = _cpu_us(step.run, runs[step])
            times[step.name].append((own_us - empty_us) / step.calls)
    gc.unfreeze()
    return times


def _runs_of_a_round(run: Callable[[], object]) -> int:
    """Return how many runs take about `ROUND_S`; they are also the warm-up."""
    runs, took_s = 1, 0.0
    while took_s < ROUND_S / 2:
        runs *= 2
        began_s = time.perf_counter()
        _cpu_us(run, runs)
        took_s = time.perf_counter() - began_s
    return max(1, round(runs * ROUND_S / took_s))


def _cpu_us(run: Callable[[], object], runs: int) -> float:
    before = time.process_time_ns()
    for _ in range(runs):
        run()
    return (time.process_time_ns() - before) / 1000 / runs


def _instructions(steps: list[Step], only: str | None) -> dict[str, int]:
    """Return the instructions of a call by step; empty if valgrind is not installed."""
    if not callgrind.is_there():
        return {}
    arguments = ["-m", "benchmarks.bench_micro", "--counted"]
    if only is not None:
        arguments += ["--step", only]
    empty, *own = callgrind.instructions(arguments, [step.counted for step in (_EMPTY, *steps)])
    return {
        step.name: round((count - empty) / step.calls)
        for step, count in zip(steps, own, strict=True)
    }


def _count(only: str | None) -> None:
    """Run the steps that callgrind counts."""
    with open_steps() as steps:
        chosen = [_EMPTY, *_chosen(steps, only)]
        gc.collect()
        gc.freeze()
        callgrind.count_runs([(step.run, step.counted) for step in chosen])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--step", metavar="NAME", help="only this one, while it is tuned")
    parser.add_argument("--counted", action="store_true", help="be the process that is counted")
    options = parser.parse_args()
    if options.counted:
        _count(options.step)
    else:
        run(options.rounds, options.step)
