"""`pixelfast key`: create write keys, and identify them without revealing them."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator

import click

from pixelfast.commands.tables import print_table
from pixelfast.config import Config, fingerprint, mask, read_config

__all__ = ["key", "new_write_key"]


def new_write_key(kind: str = "live") -> str:
    """Return a new write key with 192 random bits."""
    return f"wk_{kind}_{secrets.token_urlsafe(24)}"


@click.group()
def key() -> None:
    """Create write keys and show their fingerprints.

    \b
    Example:
      pixelfast key new
    """


@key.command()
def new() -> None:
    """Create a write key to put into the settings.

    \b
    Example:
      pixelfast key new
    """
    click.echo(new_write_key())


@key.command("fingerprint")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-c", "--config", metavar="FILE", help="Settings file whose write keys are listed.")
def show_fingerprint(keys: tuple[str, ...], config: str | None) -> None:
    """Print the fingerprints of write keys.

    The log contains fingerprints instead of keys: the first 12 hexadecimal digits of the SHA-256.
    "-" reads keys from standard input, one per line, which keeps them out of the shell history.

    \b
    Example:
      pixelfast key fingerprint -c pixelfast.toml
    """
    if config is None and not keys:
        raise click.UsageError("specify at least one KEY, or a settings file with --config")
    for each in keys:
        for text in _lines() if each == "-" else [each]:
            click.echo(fingerprint(text))
    if config is not None:
        settings = read_config(config, may_lack=("destinations", "cluster"))
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
