"""`pixelfast schema`: print the statements that create a destination's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from pixelfast.config import ClickhouseDestination, Destination, PostgresDestination, read_config
from pixelfast.config.words import one_of
from pixelfast.deliver.schemas import clickhouse as clickhouse_table
from pixelfast.deliver.schemas import postgres as postgres_table

__all__ = ["schema"]

_DEFAULT_TABLE = "events"

D = TypeVar("D", bound=Destination)


@click.group()
def schema() -> None:
    """Print the statements that create a table for events.

    They are only printed. Review them, and run them with a client of the database.

    \b
    Example:
      pixelfast schema postgres -c pixelfast.toml | psql analytics
    """


def _with_destination(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select a destination."""
    for option in (
        click.option(
            "--destination",
            metavar="NAME",
            help="Destination whose table is created; required if the settings have several of"
            " this type.",
        ),
        click.option(
            "-c",
            "--config",
            metavar="FILE",
            help=f"Settings file with the destination. Default: none, and a table"
            f" `{_DEFAULT_TABLE}`.",
        ),
    ):
        command = option(command)
    return command


@schema.command()
@_with_destination
def postgres(config: str | None, destination: str | None) -> None:
    """Print a table, its indexes and the permissions of the user for PostgreSQL.

    The names of the table, its schema, the database and the user are those of the destination. A
    comment describes how to partition the table.

    \b
    Example:
      pixelfast schema postgres -c pixelfast.toml --destination warehouse
    """
    found = _find(PostgresDestination, config, destination)
    statements = (
        postgres_table.create_statements(found.table, found.username, found.database)
        if found
        else postgres_table.create_statements(_DEFAULT_TABLE)
    )
    click.echo(statements, nl=False)


@schema.command()
@_with_destination
def clickhouse(config: str | None, destination: str | None) -> None:
    """Print a table with a deduplication window for ClickHouse.

    The names of the table and its database are those of the destination. Comments describe the
    engine, the order of the rows and how to delete old events.

    \b
    Example:
      pixelfast schema clickhouse -c pixelfast.toml --destination warehouse
    """
    found = _find(ClickhouseDestination, config, destination)
    statements = (
        clickhouse_table.create_statements(found.table, found.database)
        if found
        else clickhouse_table.create_statements(_DEFAULT_TABLE)
    )
    click.echo(statements, nl=False)


def _find(kind: type[D], config: str | None, name: str | None) -> D | None:
    """Return the destination of this type; None without a settings file.

    Raises:
        click.UsageError: there is none with this name, or there are several.
    """
    if config is None:
        if name is not None:
            raise click.UsageError("--destination requires a settings file: --config FILE")
        return None
    settings = read_config(config, may_lack=("destinations", "sources", "server.tls", "cluster"))
    known = {each.name: each for each in settings.destinations if isinstance(each, kind)}
    tag = kind.__struct_config__.tag
    if not known:
        raise click.UsageError(f"{config} has no destination of type {tag}")
    if name is None:
        if len(known) > 1:
            raise click.UsageError(
                f"{config} has several destinations of type {tag}; select one with --destination:"
                f" {', '.join(known)}"
            )
        (name,) = known
    if name not in known:
        raise click.UsageError(
            f'--destination "{name}": {config} has no such destination of type {tag}; expected'
            f" {one_of(known)}"
        )
    return known[name]
