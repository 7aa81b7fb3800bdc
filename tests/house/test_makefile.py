"""The set-up of the Makefile, tested with scripts in place of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout that has a .venv in which the package is not installed."""
    (tmp_path / "pixelfast").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", ".venv/.venv"):
        (tmp_path / name).touch()
    shutil.copy(MAKEFILE, tmp_path)
    return tmp_path


def make(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    program = checkout / ".venv" / "bin" / "python"
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o755)
    # These tests may run under make themselves.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "build"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"LC_ALL": "C"},
    )


def test_a_failed_installation_prints_its_output_and_is_repeated(checkout: Path) -> None:
    failing = 'case "$*" in *--editable*) echo "no compiler here" >&2; exit 1;; esac'
    result = make(checkout, failing)
    assert 0 != result.returncode
    assert "no compiler here" in result.stderr
    assert not (checkout / ".venv" / ".installed").exists()
    assert 0 == make(checkout, "exit 0").returncode
    assert (checkout / ".venv" / ".installed").exists()


def test_a_successful_installation_prints_nothing(checkout: Path) -> None:
    result = make(checkout, 'case "$*" in *--editable*) echo noise; echo more >&2;; esac')
    assert (0, "compiling pixelfast\n", "") == (result.returncode, result.stdout, result.stderr)
