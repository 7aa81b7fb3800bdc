"""Every deliberate mistake is detected, and a correct build passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.hunts import HUNTS, Hunt, why_no_hunt
from tests.reliability.mutants import MUTANTS, ROOT, build


def test_there_is_a_hunt_for_each_mutant() -> None:
    assert MUTANTS.keys() == HUNTS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    quickest = HUNTS[name][0]
    if reason := why_no_hunt(quickest):
        pytest.skip(reason)
    assert quickest(tmp_path, build(MUTANTS[name])), f"{name} lives"


@pytest.mark.parametrize(
    "hunt", [HUNTS["done-before-the-2xx"][0], HUNTS["segment-numbers-reused"][0]]
)
def test_a_correct_build_passes_every_hunt(hunt: Hunt, tmp_path: Path) -> None:
    assert hunt(tmp_path, ROOT) == ""
