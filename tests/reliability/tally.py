"""The results of a campaign, and their table in docs/reliability.md."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.cluster import drill
from tests.reliability.failover import Outcome
from tests.reliability.mutants import ROOT
from tests.reliability.operation import COLUMNS, Phase
from tests.reliability.oracle import Verdict

__all__ = ["Tally", "write_cluster", "write_operation", "write_table"]

PAGE = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- written by make torture -->", "<!-- end -->"
_BEGIN_OPERATION = "<!-- written by make torture: operation -->"
_BEGIN_CLUSTER = "<!-- written by make torture: cluster -->"


@dataclass
class Tally:
    """Counts of all phases; `failures` describes errors in words."""

    began_s: float = field(default_factory=time.monotonic)
    verdict: Verdict = field(default_factory=Verdict)
    killed: Counter[str] = field(default_factory=Counter)
    deaths: int = 0  # between two durable steps
    cuts: int = 0
    images: int = 0  # examples on the simulated disk
    faults: dict[str, list[str]] = field(default_factory=dict)
    weathers: Counter[str] = field(default_factory=Counter)
    behind_nginx: Outcome = field(default_factory=Outcome)
    acks_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    recovery: str = "not measured"
    caught: dict[str, str] = field(default_factory=dict)
    mutants: int = 0
    operation: list[Phase] = field(default_factory=list)
    cluster: list[drill.Phase] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line of progress."""
        seconds = int(time.monotonic() - self.began_s)
        print(f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", flush=True)

    def note(self, phase: str, verdict: Verdict) -> None:
        self.verdict += verdict
        if not verdict.is_clean:
            self.failures.append(f"{phase}: {verdict}")

    def rows(self) -> list[tuple[str, str]]:
        verdict = self.verdict
        twice = 100 * verdict.twice / max(1, verdict.received)
        rows = [
            ("kill -9", ", ".join(f"{who} {n}" for who, n in sorted(self.killed.items()))),
            ("killed between two durable steps", str(self.deaths)),
            ("power cuts", str(self.cuts)),
            ("runs on a simulated disk", f"{self.images:,}"),
        ]
        rows += [
            (f"failing `{call}`", " ".join(errors)) for call, errors in sorted(self.faults.items())
        ]
        rows += [
            ("connections, by network", ", ".join(f"{k} {n}" for k, n in self.weathers.items())),
            ("behind nginx", self.behind_nginx.described),
            ("events with response 200", f"{verdict.acked:,}"),
            ("**lost** events", str(verdict.missing)),
            ("**changed** events", str(verdict.changed)),
            ("**invented** events", str(verdict.invented)),
            ("events delivered more than once", f"{twice:.2f} %"),
        ]
        rows += [
            (f"response time, `ack = {level}`", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            for level, (p50, p99) in self.acks_ms.items()
        ]
        mutants = [f"{name} (by {by})" for name, by in self.caught.items()]
        rows += [
            ("recovery", self.recovery),
            (f"mutants caught: {len(self.caught)} of {self.mutants}", "; ".join(mutants)),
        ]
        return rows


def write_table(tally: Tally, minutes: float) -> None:
    """Put the table between the page's markers."""
    lines = [_head(f"make torture MINUTES={minutes:g}"), "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in tally.rows()]
    lines += [f"\n**Failed:** {failure.splitlines()[0]}" for failure in tally.failures]
    _put(_BEGIN, lines)


def write_operation(tally: Tally, minutes: float) -> None:
    """Put the table of the part `operation` between its own markers."""
    lines = [
        _head(f"MINUTES={minutes:g} python -m tests.reliability operation"),
        f"| {' | '.join(COLUMNS)} |",
        "|---" + "|---:" * (len(COLUMNS) - 1) + "|",
        *(f"| {' | '.join(phase.cells())} |" for phase in tally.operation),
    ]
    _put(_BEGIN_OPERATION, lines)


def write_cluster(tally: Tally, minutes: float) -> None:
    """Put the table of the part `cluster` between its own markers."""
    lines = [
        _head(f"MINUTES={minutes:g} python -m tests.reliability cluster"),
        f"| {' | '.join(drill.COLUMNS)} |",
        "|---" + "|---:" * (len(drill.COLUMNS) - 1) + "|",
        *(f"| {' | '.join(phase.cells())} |" for phase in tally.cluster),
    ]
    _put(_BEGIN_CLUSTER, lines)


def _head(command: str) -> str:
    cores = len(os.sched_getaffinity(0))
    return (
        f"{time.strftime('%Y-%m-%d')}, `{command}`, {cores} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}.\n"
    )


def _put(begin: str, lines: list[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(_END)
    assert found, f"{PAGE} has lost its markers"
    Path(PAGE).write_text(
        before + "\n".join([begin, "", *lines, "", _END]) + after, encoding="utf-8"
    )
