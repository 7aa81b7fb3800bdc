"""The examples in docstrings run, including those in the .pyi of compiled modules."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pixelfast

ROOT = Path(pixelfast.__file__).parent
PARSER = doctest.DocTestParser()
SOURCES = sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.pyi")])
WITH_EXAMPLES = [path for path in SOURCES if ">>>" in path.read_text(encoding="utf-8")]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def docstrings(path: Path) -> Iterator[tuple[str, str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                yield getattr(node, "name", "module"), text, getattr(node, "lineno", 1)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_the_examples_of_docstrings_run(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name, text, line in docstrings(path):
        test = PARSER.get_doctest(text, dict(vars(module)), name, str(path), line)
        assert runner.run(test).failed == 0, f"{path.name}: {name}"


def test_there_are_examples_to_run() -> None:
    assert len(WITH_EXAMPLES) >= 15
