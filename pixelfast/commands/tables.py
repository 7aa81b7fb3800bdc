"""Tables: drawn on a terminal, one row a line with tabs between in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from pixelfast.printable import printable

__all__ = ["print_table"]


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headers; numbers are aligned right, control characters are escaped."""
    if not sys.stdout.isatty():
        for row in (headers, *rows):
            click.echo("\t".join(printable(str(cell)) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        is_number = any(isinstance(row[place], int) for row in rows)
        table.add_column(Text(printable(header)), justify="right" if is_number else "left")
    for row in rows:
        # As `Text`: in a plain string rich would obey "[red]".
        table.add_row(
            *(f"{cell:,}" if isinstance(cell, int) else Text(printable(str(cell))) for cell in row)
        )
    Console().print(table)
