"""Tables: drawn on a terminal, one row a line with tabs between in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

__all__ = ["print_table"]


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headers; numbers stand to the right."""
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            click.echo("\t".join(map(str, row)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        is_number = any(isinstance(row[place], int) for row in rows)
        table.add_column(header, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console().print(table)
