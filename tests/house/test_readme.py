"""README is short, and its figures are those of benchmarks/RESULTS.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.readme_plot import PLOT, RESULTS, cpu_us, svg
from tests.house.pages import ROOT

README = (ROOT / "README.md").read_text("utf-8")
MEASURED = RESULTS.read_text("utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_plot_shows_the_results() -> None:
    """If not: run `python -m benchmarks.readme_plot`."""
    assert svg(MEASURED) == PLOT.read_text("utf-8")


def test_all_servers_of_the_plot_are_from_the_same_table() -> None:
    rows = [f"| {name} | 256 | 9 | {us} (" for name, us in (("nginx", 9.5), ("nginx", 8.5))]
    assert {"nginx": 9.5} == cpu_us("\n".join(rows))


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


def test_the_readme_on_pypi_has_absolute_links(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pixelfast").mkdir()
    shutil.copy(ROOT / "pixelfast/__init__.py", tmp_path / "pixelfast")
    build = "from setuptools.build_meta import prepare_metadata_for_build_wheel as p; p('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text("utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert "https://github.com/pixelfast/pixelfast/blob/main/docs/getting-started.md" in targets
    raw = "https://raw.githubusercontent.com/pixelfast/pixelfast/main/benchmarks/plots/cpu.svg"
    assert raw in targets
    assert [] == [target for target in targets if not target.startswith("https://")]
    assert "<!--" not in text
