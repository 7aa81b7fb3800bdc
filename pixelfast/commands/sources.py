"""The option --source of commands that print events."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import click

from pixelfast.config import Config
from pixelfast.errors import PixelfastError

__all__ = ["reject_unknown_sources", "with_source_names"]

with_source_names = click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    help="Print only events of this source; may be repeated.",
)


def reject_unknown_sources(names: Iterable[str], settings: Config, stored: Collection[str]) -> None:
    """Check that each source is in the settings, or in `stored`, the sources of stored events.

    Raises:
        PixelfastError: there is no such source.
    """
    known = {source.name for source in settings.sources}.union(stored)
    unknown = ", ".join(f'"{name}"' for name in dict.fromkeys(names) if name not in known)
    if unknown:
        listed = ", ".join(sorted(known)) or "none"
        raise PixelfastError(f"unknown source {unknown}; known sources: {listed}")
