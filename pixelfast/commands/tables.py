"""Prints tables with aligned columns, or as blocks on a terminal that is too narrow."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

import click
from wcwidth import wcswidth

from pixelfast.printable import printable

__all__ = ["print_table", "table_lines"]

_GAP = "  "
_INDENT = "    "
# A longer cell shifts the rest of its row instead of widening the column.
_MAX_COLUMN_WIDTH = 64


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, has_note: bool = False
) -> None:
    """Print rows below their headers, within the width of the terminal.

    If `has_note` is set, the last column is a sentence, which may be printed below its row.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(headers, rows, width, has_note=has_note):
        click.echo(line)


def table_lines(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    width: int | None,
    *,
    has_note: bool = False,
) -> list[str]:
    """Return the lines of a table within `width`; None means a pipe, which has no limit.

    No cell is truncated. Numbers are aligned right, with thousands separators except for a pipe.
    Control characters are escaped.

    >>> print("\\n".join(table_lines(["name", "events"], [("a", 1), ("bc", 2000)], None)))
    name  events
    a          1
    bc      2000
    """
    cells = [[_text(cell, width) for cell in row] for row in (headers, *rows)]
    numbers = [any(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
    numbers = numbers or [False] * len(headers)
    lines = _aligned(cells, numbers)
    if width is None or not rows or _fits(lines, width):
        return lines
    if has_note and _fits(lines := _aligned([row[:-1] for row in cells], numbers), width):
        notes = (_wrapped(row[-1], width) for row in cells)
        return [each for line, note in zip(lines, notes, strict=True) for each in (line, *note)]
    return _blocks(cells, width)


def _text(cell: object, width: int | None) -> str:
    if isinstance(cell, int) and width is not None:
        return f"{cell:,}"
    return printable(str(cell))


def _fits(lines: Iterable[str], width: int) -> bool:
    return all(wcswidth(line) <= width for line in lines)


def _aligned(cells: list[list[str]], numbers: list[bool]) -> list[str]:
    columns = [
        max(length for cell in column if (length := wcswidth(cell)) <= _MAX_COLUMN_WIDTH)
        for column in zip(*cells, strict=True)
    ]
    lines = []
    for row in cells:
        line = ""
        for cell, column, is_number in zip(row, columns, numbers, strict=False):
            padding = " " * (column - wcswidth(cell))
            line += (padding + cell if is_number else cell + padding) + _GAP
        lines.append(line.rstrip())
    return lines


def _wrapped(text: str, width: int, first: str = _INDENT) -> list[str]:
    """Break a string only between words, so that names and URLs can be copied."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _blocks(cells: list[list[str]], width: int) -> list[str]:
    headers, *rows = cells
    column = max(map(wcswidth, headers))
    lines = []
    for row in rows:
        for header, cell in zip(headers, row, strict=True):
            first = header + " " * (column - wcswidth(header)) + _GAP
            lines += _wrapped(cell, width, first) or [first.rstrip()]
        lines.append("")
    return lines[:-1]
