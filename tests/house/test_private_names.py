"""No module uses a private name of another module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pixelfast

ROOT = Path(pixelfast.__file__).parent
# aiohttp has no setting for the class that reads replies.
EXCEPTIONS = {"deliver/http/bounds.py": ["connector._factory"]}
# Public in spite of their names: a named tuple's methods, and os._exit.
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}

PRIVATE = r"_[A-Za-z0-9]\w*"
IMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|.*)", re.MULTILINE)
ATTRIBUTE = re.compile(rf"(super\(\)|[\w)\]]+)\s*\.\s*({PRIVATE})\b")
DECLARATION = re.compile(r"^\s*(?:cdef|cpdef|def|class|ctypedef)\b([^=\n]*)", re.MULTILINE)
ITSELF = {"self", "cls", "super()"}


def private_uses(path: Path) -> list[str]:
    """Return the private names of other modules that a module imports or looks up.

    An attribute of `self`, `cls` or `super()` is the module's own, and so is one of any other
    object if the module defines that name itself, for example for a second object of its class.
    """
    text = path.read_text(encoding="utf-8")
    found = _uses_of_python(text) if path.suffix == ".py" else _uses_of_cython(path, text)
    return sorted(set(found))


def _is_private(name: str) -> bool:
    return re.fullmatch(PRIVATE, name) is not None and name not in PUBLIC


def _uses_of_python(text: str) -> Iterator[str]:
    nodes = list(ast.walk(ast.parse(text)))
    attributes = [
        (ast.unparse(node.value), node.attr) for node in nodes if isinstance(node, ast.Attribute)
    ]
    own = {name for owner, name in attributes if owner in ITSELF}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            yield from (each.name for each in node.names if _is_private(each.name))
    for owner, name in attributes:
        if _is_private(name) and name not in own:
            yield f"{owner}.{name}"


def _uses_of_cython(path: Path, text: str) -> Iterator[str]:
    declared = text
    beside = path.with_suffix(".pxd")
    if path.suffix == ".pyx" and beside.exists():
        declared += "\n" + beside.read_text(encoding="utf-8")
    own = set(re.findall(rf"\bself\s*\.\s*({PRIVATE})", text))
    for line in DECLARATION.findall(declared):
        own.update(re.findall(rf"\b({PRIVATE})", line))
    code = re.sub(r"#.*", "", re.sub(r'"""(?s:.*?)"""', "", text))
    for _, names in IMPORT.findall(code):
        for each in names.strip("()").split(","):
            name = each.split()[0] if each.split() else ""
            if _is_private(name):
                yield name
    for owner, name in ATTRIBUTE.findall(code):
        if owner not in ITSELF and _is_private(name) and name not in own:
            yield f"{owner}.{name}"


def test_no_module_uses_a_private_name_of_another() -> None:
    paths = [path for path in ROOT.rglob("*.p*") if path.suffix in {".py", ".pyx", ".pxd"}]
    uses = {str(path.relative_to(ROOT)): private_uses(path) for path in paths}
    assert EXCEPTIONS == {path: found for path, found in uses.items() if found}


PYTHON = """
from elsewhere import _hidden, shown as _shown
from elsewhere import (
    _folded,
)

class Own:
    _annotated: int

    def __init__(self, other):
        self._mine = _shown
        other._mine = other._annotated = super()._inherited

    def _method(self):
        return self.other._theirs, self.other._replace(), os._exit, self.__class__
"""
CYTHON = '''
from elsewhere cimport _hidden, shown as _shown
from elsewhere import (
    _folded,
)

cdef class Own:
    """other._in_prose"""
    cdef int _declared, _second

    cdef int _method(self, Other other) except -1:
        self._mine = other._mine + other._second  # other._in_a_comment
        return (<Other> other)._theirs + other._beside + super()._inherited
'''


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("module.py", PYTHON, ["_folded", "_hidden", "self.other._theirs"]),
        ("module.pyx", CYTHON, ["_folded", "_hidden", "other)._theirs"]),
    ],
)
def test_private_names_of_others_are_found(
    name: str, text: str, expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "module.pxd").write_text("cdef class Own:\n    cdef int _beside\n")
    (tmp_path / name).write_text(text)
    assert expected == private_uses(tmp_path / name)
