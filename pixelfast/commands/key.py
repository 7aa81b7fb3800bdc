"""`pixelfast key`: make write keys, and name them without revealing them."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator

import click

from pixelfast.commands.tables import print_table
from pixelfast.config import Config, fingerprint, mask, read_config

__all__ = ["key", "new_write_key"]


def new_write_key(kind: str = "live") -> str:
    """Return a write key that cannot be guessed: 192 random bits."""
    return f"wk_{kind}_{secrets.token_urlsafe(24)}"


@click.group()
def key() -> None:
    """Make write keys, and find the key of a fingerprint in the log.

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


@key.command("fingerprint")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-c", "--config", metavar="FILE", help="The settings file, for all its write keys.")
def show_fingerprint(keys: tuple[str, ...], config: str | None) -> None:
    """Print the fingerprints that the log has in the place of write keys.

    They are the first 12 hexadecimal digits of the SHA-256 of each KEY. "-" reads keys from stdin,
    one per line, so that they stay out of the history of the shell.

    \b
    Example:
      pixelfast key fingerprint -c pixelfast.toml
    """
    if config is None and not keys:
        raise click.UsageError("name a KEY, or the settings with --config")
    for each in keys:
        for text in _lines() if each == "-" else [each]:
            click.echo(fingerprint(text))
    if config is not None:
        settings = read_config(config, may_lack=("destinations",))
        print_table(("fingerprint", "source", "key", "expires"), list(_keys(settings)))


def _lines() -> Iterator[str]:
    for line in sys.stdin:
        if text := line.strip():
            yield text


def _keys(settings: Config) -> Iterator[tuple[str, ...]]:
    for source in settings.sources:
        for each in source.write_keys:
            expires = each.expires.isoformat() if each.expires else "-"
            yield fingerprint(each.key), source.name, mask(each.key), expires
