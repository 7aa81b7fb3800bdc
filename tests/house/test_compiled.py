"""Compiled modules are imported from extensions, or the import explains how to build them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pixelfast

ROOT = Path(pixelfast.__file__).parent
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.pyx"))
]


@pytest.mark.parametrize("name", MODULES)
def test_the_imported_module_is_compiled(name: str) -> None:
    assert str(importlib.import_module(name).__file__).endswith(".so")


@pytest.mark.parametrize("name", MODULES)
def test_each_compiled_module_has_a_stub(name: str) -> None:
    assert (ROOT.parent / name.replace(".", "/")).with_suffix(".pyi").is_file()


def test_each_stub_belongs_to_a_compiled_module() -> None:
    stubs = {path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.pyi")}
    assert {Path(name.replace(".", "/")) for name in MODULES} == stubs


def test_the_import_of_a_module_that_is_not_compiled_names_make_build() -> None:
    code = (
        "import sys; sys.modules['pixelfast.event.decoder'] = None\n"
        "try:\n    import pixelfast.event\nexcept ImportError as error:\n    print(error)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "make build" in result.stdout
