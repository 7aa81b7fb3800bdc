"""The workflow of a release compares the tag with the version of the package."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from pixelfast import __version__

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / ".github").exists(), reason="needs the repository, not the source distribution"
)


def script(workflow: str, step: str) -> str:
    """Return the shell script of a step."""
    source = (ROOT / ".github" / "workflows" / workflow).read_text("utf-8")
    _, _, rest = source.partition(f"- name: {step}\n")
    _, _, block = rest.partition("run: |\n")
    indent = block[: len(block) - len(block.lstrip(" "))]
    lines = block.splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith(indent)), len(lines))
    return textwrap.dedent("\n".join(lines[:end]))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (f"v{__version__}", (0, "")),
        (
            "v999.0",
            (1, f"::error::the tag is v999.0, but pixelfast.__version__ is {__version__}\n"),
        ),
        (
            __version__,
            (1, f"::error::the tag is {__version__}, but pixelfast.__version__ is {__version__}\n"),
        ),
    ],
)
def test_a_release_fails_if_its_tag_is_not_the_version(tag: str, expected: tuple[int, str]) -> None:
    command = script("release.yml", "Compare the tag with the version of the package")
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=ROOT,
        env={**os.environ, "TAG": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected == (result.returncode, result.stdout)
