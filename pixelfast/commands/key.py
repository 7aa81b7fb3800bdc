"""`pixelfast key`: make write keys."""

from __future__ import annotations

import secrets

import click

__all__ = ["key", "new_write_key"]


def new_write_key(kind: str = "live") -> str:
    """Return a write key that cannot be guessed: 192 random bits."""
    return f"wk_{kind}_{secrets.token_urlsafe(24)}"


@click.group()
def key() -> None:
    """Make write keys.

    \b
    Example:
      pixelfast key new
    """


@key.command()
def new() -> None:
    """Make a write key for the settings.

    \b
    Example:
      pixelfast key new
    """
    click.echo(new_write_key())
