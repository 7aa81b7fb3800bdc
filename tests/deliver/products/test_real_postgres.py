"""Hostile events, wrong settings and lost connections against a real PostgreSQL server."""

# ruff: noqa: S608 - the names in queries are those of the tests

from __future__ import annotations

import asyncio
import gc
import json
import random
import string
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
import uvloop

from pixelfast.config import Config, PostgresDestination
from pixelfast.deliver.batches import Batch, Run
from pixelfast.deliver.dead import DeadLetters
from pixelfast.deliver.destinations.postgres import PostgresSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from pixelfast.deliver.postgres.connections import Connections
from pixelfast.deliver.postgres.failures import outcome_of_failure
from pixelfast.deliver.postgres.statements import DOUBTFUL, STAGED, Statements
from pixelfast.deliver.schemas.postgres import create_statements
from pixelfast.spool import DataDir
from tests.deliver.products.engines import SHORT, deliver
from tests.deliver.products.events import message_id, tracked
from tests.deliver.products.real.postgres_server import (
    HOST,
    PASSWORD,
    USER,
    PostgresServer,
    postgres_server,
)
from tests.deliver.runners import make_engine, running
from tests.deliver.running import run
from tests.deliver.senders import batch
from tests.leaks import open_fds
from tests.listener import Listener
from tests.program import run_pixelfast
from tests.spools import Feed, open_data
from tests.waiting import until

_numbers = count()


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def schema(postgres: PostgresServer) -> Iterator[str]:
    """A new, empty schema."""
    name = f"test_{next(_numbers)}"
    postgres.sql(f"CREATE SCHEMA {name}")
    yield name
    postgres.sql(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def table(postgres: PostgresServer, schema: str) -> str:
    """A table as `pixelfast schema` creates it."""
    name = f"{schema}.events"
    postgres.sql(create_statements(name, USER, "postgres"))
    return name


def destination(server: PostgresServer, table: str, **more: Any) -> PostgresDestination:
    settings = {
        "name": "warehouse",
        "host": HOST,
        "port": server.port,
        "database": "postgres",
        "table": table,
        "username": USER,
        "password": PASSWORD,
        "tls_ca": server.ca,
    }
    return PostgresDestination(**{**settings, **SHORT, **more})


def sockets() -> set[str]:
    return {each for each in open_fds().values() if each.startswith("socket:")}


@asynccontextmanager
async def sending(settings: PostgresDestination) -> AsyncIterator[PostgresSender]:
    """Use a sender, and wait until all its connections are closed, some of which end in TLS."""
    before = sockets()
    sender = PostgresSender(settings)
    await sender.open({})
    try:
        yield sender
    finally:
        await sender.close()
        await until(lambda: sockets() <= before)


def send(settings: PostgresDestination, *batches: Batch) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with sending(settings) as sender:
            return [await sender.send(each) for each in batches]

    return run(main())


async def connected(server: PostgresServer) -> asyncpg.Connection[Any]:
    """Connect as superuser."""
    return await asyncpg.connect(
        host=str(server.folder), port=server.port, user="postgres", database="postgres"
    )


def ids(server: PostgresServer, table: str) -> list[str]:
    return sorted(server.sql(f"SELECT message_id FROM {table}"))


def reasons(data: DataDir) -> dict[bytes, tuple[str, str]]:
    """Return the reason and the response of each dead letter, by its event."""
    path = data.dead_dir("warehouse") / "dead.db"
    if not path.exists():
        return {}
    with closing(DeadLetters(path)) as dead:
        return {
            bytes(each.event).rstrip(b"\n"): (each.reason, each.response.decode())
            for each in dead.read()
        }


# --- the contents of the table ----------------------------------------------------------------


def test_nothing_of_an_event_is_missing(postgres: PostgresServer, table: str) -> None:
    whole = {
        "type": "page",
        "name": "Home 🏠",
        "userId": "u'1",
        "anonymousId": 'a"2',
        "messageId": "m\\3",
        "receivedAt": "2026-01-31T00:00:00.123Z",
        "originalTimestamp": "2026-01-31T02:00:00.123456+02:00",
        "sentAt": "0001-01-01T00:00:00Z",
        "timestamp": "9999-12-31T23:59:59.999Z",
        "properties": {"a": [1, None, {"b": 1.5}], "": "\u2028", "big": 9007199254740991},
        "context": {"ip": "192.0.2.1"},
        "traits": {"x": True},
        "channel": "web",
        "request_ip": "2001:db8::1",
        "integrations": {"All": True},
        "other": "\x7f\\.",
    }
    sent = batch([json.dumps(whole).encode()])
    sent.runs = (Run("web", 1),)
    assert [Accepted()] == send(destination(postgres, table), sent)
    (stored,) = postgres.sql(
        f"SELECT to_jsonb(t) || jsonb_build_object('times', ARRAY["
        f"received_at = '{whole['receivedAt']}',"
        f"original_timestamp = '{whole['originalTimestamp']}',"
        f"sent_at = '{whole['sentAt']}', timestamp = '{whole['timestamp']}']) FROM {table} AS t"
    )
    row = json.loads(stored)
    assert [True] * 4 == row["times"]
    assert "web" == row["source"]
    names = {"userId": "user_id", "anonymousId": "anonymous_id", "messageId": "message_id"}
    times = {"receivedAt", "originalTimestamp", "sentAt", "timestamp"}
    found = {name: row[names.get(name, name)] for name in whole if names.get(name, name) in row}
    assert whole == found | row["rest"] | {name: whole[name] for name in times}
    assert row["event"] is None


def test_the_printed_statements_create_the_table_of_the_settings(
    postgres: PostgresServer, schema: str, tmp_path: Path
) -> None:
    settings = tmp_path / "pixelfast.toml"
    settings.write_text(
        f'[[destinations]]\nname = "warehouse"\ntype = "postgres"\nhost = "{HOST}"\n'
        f'port = {postgres.port}\ndatabase = "postgres"\ntable = "{schema}.Events"\n'
        f'username = "{USER}"\npassword = "${{NO_SUCH_VARIABLE}}"\n'
    )
    printed = run_pixelfast("schema", "postgres", "-c", str(settings))
    assert (0, "") == (printed.returncode, printed.stderr)
    postgres.sql(printed.stdout)
    sent = batch([tracked(n) for n in range(10)])
    assert [Accepted()] == send(destination(postgres, f"{schema}.Events"), sent)
    assert 10 == len(ids(postgres, f'{schema}."Events"'))


def test_the_comment_about_partitions_describes_a_table_that_works(
    postgres: PostgresServer, schema: str
) -> None:
    table = f"{schema}.events"
    printed = create_statements(table, USER, "postgres")
    lines = [line.removeprefix("-- ") for line in printed.splitlines()]
    first = next(n for n, line in enumerate(lines) if "PRIMARY KEY (message_id, rec" in line)
    last = next(n for n, line in enumerate(lines) if line.endswith(" DEFAULT;"))
    key, by, *partitions = lines[first : last + 1]
    whole = printed.replace("  PRIMARY KEY (message_id)\n);", f"{key}\n{by}")
    postgres.sql(whole + "\n".join(partitions))
    events = [tracked(n, receivedAt=f"2027-01-{n + 1:02}T00:00:00Z") for n in range(20)]
    sent = batch([*events, tracked(20, receivedAt="2030-01-01T00:00:00Z")])
    settings = destination(postgres, table)
    assert [Accepted()] * 2 == send(settings, sent, sent)
    assert 21 == len(ids(postgres, table))
    assert 20 == len(ids(postgres, f"{schema}.events_2027_01"))


def test_a_missing_partition_holds_the_destination_and_loses_nothing(
    postgres: PostgresServer, schema: str, data: DataDir
) -> None:
    table = f"{schema}.events"
    columns = create_statements(table).split("  PRIMARY KEY")[0]
    postgres.sql(
        f"{columns} PRIMARY KEY (message_id, received_at)) PARTITION BY RANGE (received_at);"
        f"CREATE TABLE {schema}.january PARTITION OF {table}"
        " FOR VALUES FROM ('2026-01-01 00:00Z') TO ('2026-02-01 00:00Z');"
        f"GRANT USAGE ON SCHEMA {schema} TO {USER}; GRANT INSERT, SELECT ON {table} TO {USER}"
    )
    late = tracked(1, receivedAt="2026-02-01T00:00:00.000Z")
    figures = deliver(destination(postgres, table), data, [tracked(0), late], "held")
    assert ("held", 0) == (figures["state"], figures.get("dead", 0))
    assert "no partition of relation" in figures["last_error"]
    postgres.sql(
        f"CREATE TABLE {schema}.february PARTITION OF {table}"
        " FOR VALUES FROM ('2026-02-01 00:00Z') TO ('2026-03-01 00:00Z')"
    )
    assert 2 == deliver(destination(postgres, table), data)["delivered"]
    assert [message_id(0), message_id(1)] == ids(postgres, table)


def test_an_event_that_is_repeated_is_stored_once_and_the_first_one_is_kept(
    postgres: PostgresServer, table: str
) -> None:
    events = [tracked(n) for n in range(10)]
    more = batch([*events, *events, tracked(10)], "b2")
    settings = destination(postgres, table)
    assert [Accepted()] * 3 == send(settings, batch(events), batch(events, attempt=2), more)
    assert [message_id(n) for n in range(11)] == ids(postgres, table)


def test_a_commit_is_durable_even_if_the_user_has_another_default(
    postgres: PostgresServer, table: str
) -> None:
    """With `synchronous_commit = off`, a crash could undo what was reported as committed."""
    postgres.sql(
        f"ALTER TABLE {table} ADD COLUMN synchronous text"
        " DEFAULT current_setting('synchronous_commit')"
    )
    for default, expected in (("off", "on"), ("local", "local")):
        postgres.sql(f"ALTER ROLE {USER} SET synchronous_commit = '{default}'")
        try:
            number = len(default)
            assert [Accepted()] == send(destination(postgres, table), batch([tracked(number)]))
        finally:
            postgres.sql(f"ALTER ROLE {USER} RESET synchronous_commit")
        assert [expected] == postgres.sql(
            f"SELECT synchronous FROM {table} WHERE message_id = '{message_id(number)}'"
        )


def test_a_unix_socket_needs_neither_tls_nor_a_password(
    postgres: PostgresServer, table: str
) -> None:
    settings = destination(
        postgres, table, host=str(postgres.folder), password=None, application_name="px 1"
    )
    postgres.sql(
        f"ALTER TABLE {table} ADD COLUMN app text DEFAULT current_setting('application_name')"
    )
    assert [Accepted()] == send(settings, batch([tracked(1)]))
    assert ["px 1"] == postgres.sql(f"SELECT app FROM {table}")


# --- bad events -------------------------------------------------------------------------------


def with_field(number: int, raw: bytes) -> bytes:
    """Return an event with a field whose JSON is `raw`."""
    return tracked(number)[:-1] + b',"x":' + raw + b"}"


_LONG_ID = "".join(random.Random(1).choices(string.printable[:62], k=8000))
_BAD: dict[str, tuple[Callable[[int], bytes], str]] = {
    "NUL, which a pixel cannot contain": (lambda n: with_field(n, rb'"\u0000"'), "22P05"),
    "a high surrogate": (lambda n: with_field(n, rb'"\ud800"'), "22P02"),
    "a low surrogate": (lambda n: with_field(n, rb'"\udc00x"'), "22P02"),
    "a number out of range": (lambda n: with_field(n, b"1e200000"), "22003"),
    "a number with too many digits": (lambda n: with_field(n, b"9" * 140_000), "22003"),
    "too many levels": (lambda n: with_field(n, b"[" * 100_000 + b"]" * 100_000), "54001"),
    "incomplete JSON": (lambda n: tracked(n)[:-1], "22P02"),
    "a string": (lambda _: b'"x"', "22023"),
    "an array": (lambda _: b"[1]", "23502"),
    "no id": (lambda n: tracked(n, messageId=None), "23502"),
    "an id that is too long": (lambda n: tracked(n, messageId=_LONG_ID + str(n)), "54000"),
    "an event name that is too long": (lambda n: tracked(n, event=_LONG_ID), "54000"),
    "the year 0": (lambda n: tracked(n, timestamp="0000-06-01T00:00:00Z"), "22008"),
    "an offset of 18 hours": (lambda n: tracked(n, sentAt="2026-01-01T00:00:00+18:00"), "22009"),
    "invalid UTF-8": (lambda n: with_field(n, b'"\xff"'), "22021"),
    "the delimiter": (lambda n: with_field(n, b'"\x02"'), "22P04: the event is not valid JSON"),
    # Between two quotes, the rows of good events would be part of one value.
    "the quote": (lambda n: with_field(n, b'"\x01"'), "22P04: the event is not valid JSON"),
    "a second quote": (lambda n: with_field(n, b'"\x01"'), "22P04: the event is not valid JSON"),
}
_GOOD = {
    "an escaped NUL": rb'"\\u0000"',
    "a large number": b"1e400",
    "a precise number": b"0.1234567890123456789012345678901234567890",
    "a long string": b'"%s"' % (b"x" * 300_000),
    "many levels": b"[" * 500 + b"]" * 500,
    "quotes in a key": rb"""{"a'\"$pixelfast$;--":1}""",
    "a repeated key": b'{"a":1,"a":2}',
    "the end of COPY": rb'"\\.\n\\."',
    "a statement": b'"\'); DROP TABLE events; --"',
    "characters beyond the BMP": '"\U0001f600\u2028\ufffe"'.encode(),
    "control characters": rb'"\u0001\u0002\u0003\u001f"',
}


def test_bad_events_become_dead_letters_alone_with_the_servers_words(
    postgres: PostgresServer, table: str, data: DataDir
) -> None:
    good = [with_field(n, raw) for n, raw in enumerate(_GOOD.values(), 1000)]
    bad = {make(n): code for n, (make, code) in enumerate(_BAD.values(), 2000)}
    events = [tracked(n) for n in range(100)] + good + list(bad)
    random.Random(7).shuffle(events)
    figures = deliver(destination(postgres, table), data, events)
    counts = tuple(figures[name] for name in ("state", "delivered", "dead"))
    assert ("healthy", 100 + len(good), len(bad)) == counts
    numbers = [*range(100), *range(1000, 1000 + len(good))]
    assert sorted(map(message_id, numbers)) == ids(postgres, table)
    found = reasons(data)
    assert {event: f"SQLSTATE {code}" for event, code in bad.items()} == {
        event: reason for event, (reason, _) in found.items()
    }
    assert all(response for _, response in found.values())
    assert "index row size" in found[tracked(2010, messageId=_LONG_ID + "2010")][1]


@pytest.mark.parametrize("share", [1, 50, 100])
def test_any_share_of_bad_events_is_found_in_one_attempt(
    postgres: PostgresServer, table: str, share: int
) -> None:
    """Some have values that cannot be converted, the others violate a constraint of the table."""
    postgres.sql(f"ALTER TABLE {table} ADD CONSTRAINT short CHECK (length(event) < 20)")
    bad = {
        n: tracked(n, **({"event": "x" * 20} if n % 2 else {"sentAt": "zz"}))
        for n in random.Random(share).sample(range(400), 4 * share)
    }
    sent = batch([bad.get(n) or tracked(n) for n in range(400)])
    (outcome,) = send(destination(postgres, table), sent)
    assert isinstance(outcome, Partial)
    assert bad.keys() == set(outcome.failed)
    for n, each in outcome.failed.items():
        assert isinstance(each, Rejected)
        assert f"SQLSTATE {'23514' if n % 2 else '22007'}" == each.reason
    assert sorted(message_id(n) for n in range(400) if n not in bad) == ids(postgres, table)


_RULES = {
    "a trigger": (
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF new.event = 'bad' THEN RAISE 'no %', new.event; END IF; RETURN new; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        "P0001",
        "no bad",
    ),
    "a column that is computed": (
        "ALTER TABLE {table} ADD COLUMN x int GENERATED ALWAYS AS"
        " (CASE event WHEN 'bad' THEN 1 / (length(event) - 3) END) STORED",
        "22012",
        "division by zero",
    ),
    "a trigger with the code of a violated constraint": (
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.event = 'bad' THEN RAISE 'no bad' USING ERRCODE = 'check_violation'; END IF;"
        " RETURN new; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        "23514",
        "no bad",
    ),
    "a trigger with a code of its own": (
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.event = 'bad' THEN RAISE 'no bad' USING ERRCODE = '45000'; END IF;"
        " RETURN new; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        "45000",
        "no bad",
    ),
    "a trigger that does not know the value": (
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " CASE new.event WHEN 'Email Opened' THEN RETURN new; END CASE; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        "20000",
        "case not found",
    ),
    "a trigger that returns nothing": (
        "CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF new.event <> 'bad' THEN RETURN new; END IF; END $$;"
        " CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.no()",
        "2F005",
        "without RETURN",
    ),
    "a policy for rows": (
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
        " CREATE POLICY p ON {table} USING (true) WITH CHECK (event <> 'bad')",
        "42501",
        "row-level security policy",
    ),
    "a second unique index": ("CREATE UNIQUE INDEX ON {table} (name)", "23505", "events_name_idx"),
    "a deferred constraint": (
        "CREATE TABLE {schema}.names (name text PRIMARY KEY); INSERT INTO {schema}.names"
        " SELECT 'ok' || n FROM generate_series(0, 99) AS n; ALTER TABLE {table} ADD FOREIGN KEY"
        " (name) REFERENCES {schema}.names DEFERRABLE INITIALLY DEFERRED",
        "23503",
        "is not present in table",
    ),
}


@pytest.mark.parametrize(("rule", "code", "words"), _RULES.values(), ids=list(_RULES))
def test_an_event_that_violates_a_rule_of_the_operator_becomes_a_dead_letter_alone(
    postgres: PostgresServer,
    schema: str,
    table: str,
    data: DataDir,
    rule: str,
    code: str,
    words: str,
) -> None:
    postgres.sql(rule.format(schema=schema, table=table))
    events = [tracked(n, name=f"ok{n}") for n in range(64)]
    name = "ok0" if code == "23505" else "bad"
    bad = tracked(99, name=name, event="bad")
    figures = deliver(destination(postgres, table), data, [*events, bad])
    assert ("healthy", 64, 1) == tuple(figures[name] for name in ("state", "delivered", "dead"))
    assert sorted(message_id(n) for n in range(64)) == ids(postgres, table)
    ((event, (reason, response)),) = reasons(data).items()
    assert (bad, f"SQLSTATE {code}") == (event, reason)
    assert words in response


# --- wrong settings and an unavailable server --------------------------------------------------

_WRONG = {
    "password": ({"password": "wr0ng"}, "SQLSTATE 28P01: password authentication failed"),
    "no password": ({"password": None}, "SQLSTATE 28P01: "),
    "user": ({"username": "nobody"}, "SQLSTATE 28P01: password authentication failed"),
    "database": ({"database": "none"}, 'SQLSTATE 3D000: database "none" does not exist'),
    "schema": ({"table": "none.events"}, 'SQLSTATE 42P01: relation "none.events" does not exist'),
    "case of the table": ({"table": "EVENTS"}, 'SQLSTATE 42P01: relation "EVENTS" does not exist'),
    "another name in the certificate": (
        {"host": "127.0.0.1"},
        "the server's certificate is not accepted: IP address mismatch",
    ),
    "another authority": ({"tls_ca": ""}, "the server's certificate is not accepted: "),
    "authority that is missing": ({"tls_ca": "/none.pem"}, "tls_ca /none.pem: No such file"),
}


def test_a_policy_that_every_row_violates_holds_the_destination(
    postgres: PostgresServer, table: str, data: DataDir
) -> None:
    postgres.sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    settings = destination(postgres, table, max_events=8)
    figures = deliver(settings, data, [tracked(n) for n in range(32)], "held")
    assert ("held", 0) == (figures["state"], figures.get("dead", 0))
    assert "every event is rejected: SQLSTATE 42501" == figures["last_error"]
    postgres.sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    assert 32 == deliver(settings, data)["delivered"]


def test_a_permission_that_is_missing_when_bad_events_are_found_is_not_their_fault(
    postgres: PostgresServer, table: str
) -> None:
    """A row that violates a policy has the same code."""
    statements = Statements(table, 5.0)
    postgres.sql(f"REVOKE INSERT ON {table} FROM {USER}")

    async def sort_out() -> None:
        connection = await connected(postgres)
        try:
            await connection.execute(
                f"SET SESSION AUTHORIZATION {USER}; {statements.begin_doubtful}"
            )
            row = 0, "web", tracked(0).decode()
            await connection.execute(f"INSERT INTO pg_temp.{DOUBTFUL} VALUES ($1, $2, $3)", *row)
            await connection.execute(statements.sort_out(Statements.CONFLICTS[0], 1))
        finally:
            await connection.close()

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table"):
        run(sort_out())


def test_a_connection_that_ends_between_statements_is_no_bug(
    postgres: PostgresServer, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = destination(postgres, table, host=str(postgres.folder))

    async def lose(connections: Connections) -> None:
        async with connections.borrowed(asyncio.to_thread) as connection:
            await connection.execute(Statements(table, 5.0).begin)
            ended = f"SELECT pg_terminate_backend({connection.get_server_pid()}, 5000)"
            postgres.sql(ended)  # the loop stands still meanwhile
            await asyncio.sleep(0)
            await connection.copy_to_table(STAGED, schema_name="pg_temp", source=rows())

    async def main() -> None:
        connections = Connections(settings)
        with pytest.raises((asyncpg.InternalClientError, asyncpg.PostgresError)) as caught:
            await lose(connections)
        assert isinstance(outcome_of_failure(caught.value, connections.where), Retry)

    async def rows() -> AsyncIterator[bytes]:
        yield b"web\t{}\n"

    uvloop.run(main())
    gc.collect()
    assert [] == caplog.records


@pytest.mark.parametrize(("wrong", "reason"), _WRONG.values(), ids=list(_WRONG))
def test_a_wrong_setting_holds_the_destination(
    postgres: PostgresServer, table: str, wrong: dict[str, Any], reason: str
) -> None:
    settings = destination(postgres, **{"table": table, **wrong})
    (outcome,) = send(settings, batch([tracked(1)]))
    assert isinstance(outcome, Held)
    assert reason in outcome.reason
    assert "wr0ng" not in repr(outcome)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER TABLE {table} DROP COLUMN context", 'column "context" of relation "events"'),
        ("ALTER TABLE {table} DROP CONSTRAINT events_pkey", "42P10: the table has no unique index"),
        ("ALTER TABLE {table} ALTER user_id TYPE int USING 1", "42804: column "),
        ("REVOKE INSERT ON {table} FROM {user}", "42501: permission denied for table events"),
        ("REVOKE SELECT (message_id) ON {table} FROM {user}", "42501: permission denied"),
        ("REVOKE USAGE ON SCHEMA {schema} FROM {user}", "42501: permission denied for schema"),
        (
            "ALTER TABLE {table} RENAME TO t; CREATE VIEW {table} AS SELECT DISTINCT * FROM"
            " {schema}.t; GRANT INSERT, SELECT ON {table} TO {user}",
            "55000: cannot insert into view",
        ),
    ],
)
def test_a_table_that_does_not_fit_holds_the_destination(
    postgres: PostgresServer, schema: str, table: str, change: str, reason: str
) -> None:
    postgres.sql(change.format(schema=schema, table=table, user=USER))
    (outcome,) = send(destination(postgres, table), batch([tracked(1), tracked(2)]))
    assert isinstance(outcome, Held)
    assert reason in outcome.reason


@pytest.mark.parametrize("tls", ["verify-ca", "require", "disable"])
def test_weaker_tls_accepts_another_name_in_the_certificate(
    postgres: PostgresServer, table: str, tls: str
) -> None:
    more = {} if tls == "verify-ca" else {"tls_ca": ""}
    settings = destination(postgres, table, host="127.0.0.1", tls=tls, **more)
    column = "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
    postgres.sql(
        f"CREATE FUNCTION {table}_tls() RETURNS boolean LANGUAGE sql AS 'SELECT {column}';"
        f"ALTER TABLE {table} ADD COLUMN tls boolean DEFAULT {table}_tls()"
    )
    assert [Accepted()] == send(settings, batch([tracked(1)]))
    assert ["f" if tls == "disable" else "t"] == postgres.sql(f"SELECT tls FROM {table}")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("SET default_transaction_read_only = on", "RESET ALL", "25006: cannot execute"),
        ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1", "53300: too many connections"),
        ("SET lock_timeout = '1ms'", "RESET ALL", "55P03: canceling statement due to lock"),
    ],
)
def test_an_unavailable_server_is_retried(
    postgres: PostgresServer, table: str, before: str, after: str, reason: str
) -> None:
    async def main() -> list[Outcome]:
        lock = await connected(postgres)
        try:
            await lock.execute(f"BEGIN; LOCK TABLE {table}")
            async with sending(destination(postgres, table, timeout_s=5.0)) as sender:
                return [await sender.send(batch([tracked(1)]))]
        finally:
            await lock.close()

    postgres.sql(f"ALTER ROLE {USER} {before}")
    try:
        (outcome,) = run(main())
    finally:
        postgres.sql(f"ALTER ROLE {USER} {after}")
    assert isinstance(outcome, Retry)
    assert reason in outcome.reason
    assert [Accepted()] == send(destination(postgres, table), batch([tracked(1)]))


def test_a_table_that_is_locked_is_retried_after_the_timeout(
    postgres: PostgresServer, table: str
) -> None:
    async def main() -> None:
        lock = await connected(postgres)
        try:
            await lock.execute(f"BEGIN; LOCK TABLE {table}")
            async with sending(destination(postgres, table, timeout_s=0.3)) as sender:
                outcome = await sender.send(batch([tracked(1)]))
                assert isinstance(outcome, Retry), outcome
                await lock.execute("ROLLBACK")
                assert Accepted() == await sender.send(batch([tracked(1)]))
        finally:
            await lock.close()

    run(main())


def test_a_server_that_is_down_is_retried(postgres: PostgresServer) -> None:
    settings = destination(postgres, "events", host="127.0.0.1", port=1)
    (outcome,) = send(settings, batch([tracked(1)]))
    assert Retry("127.0.0.1:1: Connection refused") == outcome


def test_a_connection_that_the_server_closes_while_it_is_idle_is_replaced(
    postgres: PostgresServer, table: str
) -> None:
    async def main() -> None:
        async with sending(destination(postgres, table)) as sender:
            assert Accepted() == await sender.send(batch([tracked(1)]))
            await asyncio.to_thread(
                postgres.sql,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                f" WHERE usename = '{USER}'",
            )
            outcome = await sender.send(batch([tracked(2)]))
            assert isinstance(outcome, Accepted | Retry)
            assert Accepted() == await sender.send(batch([tracked(2)]))

    run(main())
    assert 2 == len(ids(postgres, table))


# --- connections that break at every step ------------------------------------------------------


# The start of a session, a password, a query, the end of COPY, and Sync.
_WITH_RESPONSE = {b"", b"p", b"Q", b"c", b"S"}


class CutProxy:
    """Resets a connection at one of the messages that the client sends.

    Attributes:
        cut_at: the number of that message, from 0 for the start of the session.
        is_executed: whether the server gets the message, and only its response is lost.
        sent: the types of the messages that clients have sent.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = Listener(self._serve)
        self.port = 0
        self.cut_at = -1
        self.is_executed = False
        self.sent: list[bytes] = []

    async def __aenter__(self) -> Self:
        self.port = await self._listener.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.sent.clear()
        forward = asyncio.create_task(_forward(far_reader, writer))
        try:
            while True:
                head = await reader.readexactly(5 if self.sent else 4)
                size = int.from_bytes(head[-4:]) - 4
                message = head + await reader.readexactly(size)
                is_last = len(self.sent) == self.cut_at
                self.sent.append(head[:-4])
                if is_last and not self.is_executed:
                    return
                if is_last:
                    forward.cancel()
                    await asyncio.gather(forward, return_exceptions=True)
                far_writer.write(message)
                await far_writer.drain()
                if is_last:
                    if head[:-4] in _WITH_RESPONSE:
                        await far_reader.read(1)
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            forward.cancel()
            await asyncio.gather(forward, return_exceptions=True)
            writer.transport.abort()
            far_writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
    writer.close()


@pytest.mark.parametrize("bad", [(), (3, 5)])
@pytest.mark.parametrize("is_executed", [False, True])
def test_a_connection_that_breaks_at_any_step_loses_and_repeats_nothing(
    postgres: PostgresServer, table: str, is_executed: bool, bad: tuple[int, ...]
) -> None:
    """Even if the server has committed, and the response to COMMIT is lost."""
    sent = batch([tracked(n, **({"sentAt": "zz"} if n in bad else {})) for n in range(8)])
    good = [message_id(n) for n in range(8) if n not in bad]
    stored: list[int] = []

    async def main() -> list[bytes]:
        async with AsyncExitStack() as stack:
            admin = await connected(postgres)
            stack.push_async_callback(admin.close)
            proxy = await stack.enter_async_context(CutProxy(postgres.port))
            proxy.is_executed = is_executed
            settings = destination(
                postgres, table, host="127.0.0.1", port=proxy.port, tls="disable", tls_ca=""
            )
            for step in count():
                await admin.execute(f"TRUNCATE {table}")
                proxy.cut_at = step
                async with sending(settings) as sender:
                    outcome = await sender.send(sent)
                    is_whole = len(proxy.sent) <= step
                    if not is_whole:
                        assert isinstance(outcome, Retry), (proxy.sent, outcome)
                        stored.append(await admin.fetchval(f"SELECT count(*) FROM {table}"))
                        proxy.cut_at = -1
                        outcome = await sender.send(sent)
                    assert isinstance(outcome, Partial if bad else Accepted)
                rows = await admin.fetch(f"SELECT message_id FROM {table} ORDER BY 1")
                assert good == [row["message_id"] for row in rows]
                if is_whole:
                    return [each for each in proxy.sent if each != b"X"]
        raise AssertionError

    messages = run(main())
    assert {b"p", b"Q", b"d", b"c"} <= set(messages)
    assert len(messages) == len(stored), "one step after the other was cut"
    committed = [n for n in stored if n]
    assert [len(good)] * len(committed) == committed, "a batch is stored as a whole or not at all"
    assert is_executed == bool(committed)


# --- under load --------------------------------------------------------------------------------


class Delivery:
    """An engine that delivers events while the test interferes."""

    def __init__(self, settings: PostgresDestination, data: DataDir, feed: Feed) -> None:
        self._name = settings.name
        self._feed = feed
        self.engine = make_engine(data, config=Config(destinations=(settings,)))
        self.written = 0

    def write(self, events: int) -> None:
        for number in range(self.written, self.written + events):
            self._feed.write(tracked(number))
        self.written += events

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.engine.stats()["destinations"][self._name]
        return figures

    async def delivers(self, events: int) -> None:
        await until(lambda: self.figures.get("delivered", 0) >= events)

    async def is_held(self, reason: str) -> None:
        def is_so() -> bool:
            self.write(1)
            return self.figures["state"] == "held" and reason in self.figures["last_error"]

        await until(is_so)


@pytest.fixture
def feed(data: DataDir) -> Iterator[Feed]:
    with Feed(data, segment_bytes=2**18) as feed:
        yield feed


@pytest.mark.usefixtures("postgres")
def test_nothing_is_lost_or_repeated_while_the_server_is_killed(data: DataDir, feed: Feed) -> None:
    async def main(server: PostgresServer) -> int:
        settings = destination(server, "events", max_events=25, connect_timeout_s=2.0)
        delivery = Delivery(settings, data, feed)
        async with running(delivery.engine):
            for _ in range(3):
                before = delivery.written
                delivery.write(1500)
                await delivery.delivers(before + 200)  # the rest is under way
                await asyncio.to_thread(server.kill)
                delivery.write(100)
                await asyncio.to_thread(server.start)
            await delivery.delivers(delivery.written)
            assert 0 == delivery.figures.get("dead", 0)
        return delivery.written

    with postgres_server() as server:
        server.sql(create_statements("events", USER, "postgres"))
        written = run(main(server))
        assert [message_id(n) for n in range(written)] == ids(server, "events")


@pytest.mark.parametrize(
    ("harm", "cure", "reason"),
    [
        ("REVOKE INSERT ON {table} FROM {user}", "GRANT INSERT ON {table} TO {user}", "42501"),
        (
            "ALTER TABLE {table} RENAME TO gone",
            "ALTER TABLE {schema}.gone RENAME TO events",
            "42P01",
        ),
        ("ALTER ROLE {user} NOLOGIN", "ALTER ROLE {user} LOGIN", "28000"),
    ],
)
def test_nothing_is_lost_while_a_permission_or_the_table_is_missing(
    postgres: PostgresServer,
    schema: str,
    table: str,
    data: DataDir,
    feed: Feed,
    harm: str,
    cure: str,
    reason: str,
) -> None:
    names = {"schema": schema, "table": table, "user": USER}
    settings = destination(postgres, table, max_events=25)

    async def main() -> int:
        delivery = Delivery(settings, data, feed)
        async with running(delivery.engine):
            delivery.write(500)
            await delivery.delivers(100)
            await asyncio.to_thread(postgres.sql, harm.format(**names))
            if "LOGIN" in harm:  # which applies to new connections
                await asyncio.to_thread(
                    postgres.sql,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE usename = '{USER}'",
                )
            await delivery.is_held(reason)
            await asyncio.to_thread(postgres.sql, cure.format(**names))
            await delivery.delivers(delivery.written)
            assert ("healthy", 0) == (delivery.figures["state"], delivery.figures.get("dead", 0))
        return delivery.written

    written = run(main())
    assert [message_id(n) for n in range(written)] == ids(postgres, table)


def test_a_table_that_is_dropped_and_created_again_receives_all_later_events(
    postgres: PostgresServer, table: str, data: DataDir, feed: Feed
) -> None:
    settings = destination(postgres, table, max_events=25)

    async def main() -> tuple[int, int]:
        delivery = Delivery(settings, data, feed)
        async with running(delivery.engine):
            delivery.write(200)
            await delivery.delivers(200)
            await asyncio.to_thread(postgres.sql, f"DROP TABLE {table}")
            await delivery.is_held("42P01")
            await asyncio.to_thread(postgres.sql, create_statements(table, USER, "postgres"))
            await delivery.delivers(delivery.written)
            assert 0 == delivery.figures.get("dead", 0)
        return 200, delivery.written

    dropped, written = run(main())
    assert [message_id(n) for n in range(dropped, written)] == ids(postgres, table)


def test_a_copy_that_is_sent_as_a_probe_has_the_source_of_its_event(
    postgres: PostgresServer, table: str, data: DataDir, feed: Feed
) -> None:
    """The event itself is skipped later, because the table has it."""
    settings = destination(postgres, table, max_events=25)
    postgres.sql(f"ALTER TABLE {table} ADD CONSTRAINT no CHECK (event <> 'bad')")

    async def main() -> int:
        delivery = Delivery(settings, data, feed)
        for number in range(10_000, 10_200):  # the oldest events are all rejected
            feed.write(tracked(number, event="bad"))
        async with running(delivery.engine):
            await until(lambda: delivery.figures["state"] == "held")
            delivery.write(50)
            await delivery.delivers(50)
        return delivery.written

    written = run(main())
    assert ["web"] * written == postgres.sql(f"SELECT source FROM {table}")
