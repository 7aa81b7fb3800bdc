"""README is short, and its figures are those of benchmarks/RESULTS.md."""

from __future__ import annotations

import re

from benchmarks.readme_plot import PLOT, RESULTS, cpu_us, svg
from tests.house.pages import ROOT

README = (ROOT / "README.md").read_text("utf-8")
MEASURED = RESULTS.read_text("utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_plot_shows_the_results() -> None:
    """If not: run `python -m benchmarks.readme_plot`."""
    assert svg(MEASURED) == PLOT.read_text("utf-8")


def test_the_text_that_replaces_the_plot_has_the_same_figures() -> None:
    shown = re.findall(r"(\w+) ([0-9.]+) µs", README)
    measured = cpu_us(MEASURED)
    assert [(name, f"{measured[name.lower()]:.1f}") for name, _ in shown] == shown
    assert len(shown) == 4


def test_the_ratio_to_nginx_is_the_measured_one() -> None:
    ratio = re.search(r"With\s+64 connections.*?takes ([0-9.]+) times", README, re.DOTALL)
    measured = re.search(r"CPU a synced event : nginx.*?c64 ([0-9.]+) ", MEASURED)
    assert ratio is not None
    assert measured is not None
    assert measured[1] == ratio[1]
