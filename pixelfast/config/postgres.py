"""The settings of PostgreSQL destinations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from pixelfast.config.delivery import MaxBytes, MaxEvents, Remote
from pixelfast.config.fields import Secret
from pixelfast.config.packages import missing_package
from pixelfast.config.tables import Table
from pixelfast.config.words import one_of, shown
from pixelfast.errors import ConfigError

__all__ = ["PostgresDestination", "postgres_clashes"]

# PostgreSQL truncates identifiers after 63 bytes.
_TableName = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}\Z",
        extra={
            "allowed": "1 to 63 letters, digits or _, beginning with a letter or _; optionally"
            " after a schema of that form and a dot"
        },
    ),
]
_WITH_TLS = ("verify-full", "verify-ca", "require")


class PostgresDestination(Remote, frozen=True, kw_only=True, tag_field="type", tag="postgres"):
    """A PostgreSQL table; requires the extra `pixelfast[postgres]`."""

    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="host name or IP address of the server, or the directory of its Unix "
            "socket, such as `/run/postgresql`",
            extra={"kind": "database host"},
        ),
    ]
    port: Annotated[
        int, Meta(ge=1, le=65535, description="port of the server; also part of the socket's name")
    ] = 5432
    database: Annotated[
        str, Meta(min_length=1, description="name of the database", extra={"kind": "plain"})
    ]
    table: Annotated[
        _TableName,
        Meta(
            description="table that receives a row for each event, `TABLE` or `SCHEMA.TABLE`; "
            "upper and lower case are distinguished"
        ),
    ]
    username: Annotated[str, Meta(min_length=1, description="user name", extra={"kind": "plain"})]
    password: Annotated[Secret | None, Meta(description="password of the user")] = None
    tls: Annotated[
        Literal["verify-full", "verify-ca", "require", "disable"],
        Meta(
            description="TLS of TCP connections: verify the certificate and its host name; verify "
            "only the certificate; encrypt without verification, which does not protect against "
            "an attacker in the network; or no TLS"
        ),
    ] = "verify-full"
    application_name: Annotated[
        str,
        Meta(
            max_length=63,
            description="name of the connections in `pg_stat_activity`",
            extra={"kind": "plain"},
        ),
    ] = "pixelfast"
    timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            description="maximum duration of the transaction of a batch, from connecting to the "
            "end of the commit; a batch that takes longer is retried",
        ),
    ] = 30.0
    concurrency: Annotated[int, Meta(ge=1, le=64, description="maximum number of connections")] = 4
    max_events: MaxEvents = 10_000
    max_bytes: MaxBytes = 8 * 2**20


def postgres_clashes(database: Table) -> Iterator[ConfigError]:
    """Yield the conflicts between the settings of a destination, and a missing package."""
    path, tls = database.path, database.get("tls")
    if missing := missing_package("postgres", "asyncpg"):
        yield ConfigError(f"{path}.type", shown("postgres"), missing)
    if str(database.get("host")).startswith("/") and database.gives("tls") and tls != "disable":
        yield ConfigError(f"{path}.tls", shown(tls), "connections over a Unix socket have no TLS")
    for name, needed in (("tls_ca", ("verify-full", "verify-ca")), ("tls_cert", _WITH_TLS)):
        if database.get(name) and tls is not None and tls not in needed:
            what = f"requires tls to be {one_of(needed)}"
            yield ConfigError(f"{path}.{name}", None, what)
