"""A plugin of coverage.py for modules that Cython has compiled with PIXELFAST_TRACE=1.

Cython's own plugin expects the C file beside the module, takes the lines of a `.pxd` from one of
its modules alone, and parses the C files in every process that is measured. This plugin reads the
C files in `build/cython`, and only for the report.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from coverage.plugin import CoveragePlugin, FileReporter, FileTracer

ROOT = Path(__file__).parents[1]
SUFFIXES = (".pyx", ".pxd")
SOURCE_COMMENT = re.compile(r' */\* "(pixelfast/[^"]+)":\d+$')
# Not run by calls.
HEADING = re.compile(r"\s*(@|(cdef|cpdef|def|class)\b.*[(:,]$)")
TRACED_LINE = re.compile(r" *__Pyx_TraceLine\((\d+),")


class CythonLines(CoveragePlugin):
    """Measures the modules of `pixelfast` that are compiled, and the `.pxd` they include."""

    def file_tracer(self, filename: str) -> FileTracer | None:
        """Return the tracer of a source file; Cython names it relative to the checkout."""
        if not filename.endswith(SUFFIXES) or "pixelfast/" not in filename:
            return None
        return _Tracer(str(ROOT / filename))

    def file_reporter(self, filename: str) -> FileReporter:
        return _Reporter(filename)

    def find_executable_files(self, src_dir: str) -> Iterable[str]:
        """Name all sources, so that a file that no test runs is reported.

        Every measured process calls this at its end.
        """
        return [str(path) for path in Path(src_dir).rglob("*") if path.suffix in SUFFIXES]


class _Tracer(FileTracer):
    def __init__(self, path: str) -> None:
        self._path = path

    def source_filename(self) -> str:
        return self._path


class _Reporter(FileReporter):
    def lines(self) -> set[int]:
        source = Path(self.filename).read_text(encoding="utf-8").splitlines()
        traced = _traced_lines(ROOT)[Path(self.filename)]
        return {number for number in traced if not HEADING.match(source[number - 1])}


@cache
def _traced_lines(root: Path) -> dict[Path, set[int]]:
    """Return the lines of each source file for which some C file contains a call of the tracer."""
    found: dict[Path, set[int]] = defaultdict(set)
    for c_file in (root / "build/cython").rglob("*.c"):
        source = None
        for line in c_file.read_text(encoding="utf-8").splitlines():
            if comment := SOURCE_COMMENT.match(line):
                source = root / comment[1]
            elif source is not None and (traced := TRACED_LINE.match(line)):
                found[source].add(int(traced[1]))
    return found


def coverage_init(registry: Any, _options: Any) -> None:
    """Register the plugin; coverage.py calls this by name."""
    plugin = CythonLines()
    registry.add_file_tracer(plugin)
