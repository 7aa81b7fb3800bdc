"""Packages import only those that docs/architecture.md allows them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pixelfast

ROOT = Path(pixelfast.__file__).parent
# The packages that each package may import.
ALLOWED = {
    "backoff": set(),
    "printable": set(),
    "errors": {"printable"},
    "tls": set(),
    "config": {"printable", "errors"},
    "event": {"errors"},
    "spool": {"errors"},
    "kafka": {"config", "tls"},
    "cluster": {"config", "spool", "kafka"},
    "collect": {"errors", "config", "event", "spool", "cluster"},
    "deliver": {"backoff", "errors", "config", "tls", "spool", "kafka", "cluster"},
    "operate": {"backoff", "printable", "errors", "config", "spool", "collect", "deliver"},
    "commands": {
        "printable",
        "errors",
        "config",
        "event",
        "spool",
        "cluster",
        "collect",
        "deliver",
        "operate",
    },
    "cli": {"printable", "errors", "commands"},
    "__main__": {"cli"},
}
CIMPORT = re.compile(
    r"^\s*(?:from\s+(pixelfast[\w.]*)\s+c?import|c?import\s+(pixelfast[\w.]*))", re.MULTILINE
)


def part_of(module: str) -> str | None:
    """Return the first name below `pixelfast`, or None for the package itself."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or None


def imported_modules(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        for first, second in CIMPORT.findall(text):
            yield first or second
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            if node.module == "pixelfast":
                yield from (f"pixelfast.{alias.name}" for alias in node.names)


def edges() -> Iterator[tuple[Path, str, str]]:
    for path in sorted(ROOT.rglob("*")):
        if path.suffix not in {".py", ".pyx", ".pxd"} or path == ROOT / "__init__.py":
            continue
        importer = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for module in imported_modules(path):
            if module == "pixelfast" or module.startswith("pixelfast."):
                imported = part_of(module)
                if imported not in {None, importer, "__version__"}:
                    yield path.relative_to(ROOT), importer, imported


def test_each_package_has_its_rule() -> None:
    parts = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if (path.is_dir() and path.name != "__pycache__") or path.suffix == ".py"
    }
    assert set(ALLOWED) | {"__init__"} == parts


def test_no_package_imports_one_that_it_must_not() -> None:
    wrong = [
        f"{path} imports pixelfast.{imported}"
        for path, importer, imported in edges()
        if imported not in ALLOWED[importer]
    ]
    assert wrong == []


def test_imports_of_cython_and_python_are_found() -> None:
    seen = {(importer, imported) for _, importer, imported in edges()}
    assert {("collect", "event"), ("collect", "spool"), ("deliver", "spool")} <= seen


def test_every_allowed_import_is_needed() -> None:
    seen = {(importer, imported) for _, importer, imported in edges()}
    allowed = {(importer, each) for importer, imports in ALLOWED.items() for each in imports}
    # Named in a string: commands are imported when they are used.
    assert {("cli", "commands")} == allowed - seen
