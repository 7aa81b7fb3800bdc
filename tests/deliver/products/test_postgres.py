"""PostgreSQL without a server: the rows of a batch, and the meaning of errors."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from pixelfast.config import PostgresDestination
from pixelfast.deliver.batches import Batch, Run
from pixelfast.deliver.destinations.postgres import PostgresSender
from pixelfast.deliver.outcomes import Held, Rejected, Retry
from pixelfast.deliver.postgres.connections import Connections
from pixelfast.deliver.postgres.failures import outcome_of_failure
from pixelfast.deliver.postgres.rows import numbered_rows, plain_rows
from pixelfast.deliver.postgres.statements import Statements
from tests.deliver.running import run

WHERE = "db.example.com:5432"
SETTINGS = PostgresDestination(
    name="p", host="db.example.com", database="d", table="t", username="u", tls="disable"
)


def server_error(code: str, **more: str) -> asyncpg.PostgresError:
    names = {"detail": "D", "constraint": "n", "table": "t", "function": "R"}
    fields = {"S": "ERROR", "C": code, "M": "the server's words"}
    error = asyncpg.PostgresError.new(fields | {names[name]: each for name, each in more.items()})
    assert isinstance(error, asyncpg.PostgresError)
    return error


def test_each_row_has_the_source_of_its_event() -> None:
    body = b'{"n":0}\n{"n":1}\n{"n":2}\n'
    batch = Batch(body=body, events=3, runs=(Run("web", 2), Run("mail", 1)))
    assert b'web\x02{"n":0}\nweb\x02{"n":1}\nmail\x02{"n":2}\n' == plain_rows(batch)
    numbered = b'0\x02web\x02{"n":0}\n1\x02web\x02{"n":1}\n2\x02mail\x02{"n":2}\n'
    assert numbered == numbered_rows(batch)


def test_a_source_that_is_not_known_is_null() -> None:
    assert b'\x03\x02{"n":0}\n' == plain_rows(Batch(body=b'{"n":0}\n', events=1))


@pytest.mark.parametrize(
    "code",
    [
        *("22P02", "22P05", "22003", "22008", "23502", "23505", "44000", "54000", "P0001"),
        *("20000", "21000", "2F005", "38000", "39P01", "45000", "AB123"),
    ],
)
def test_an_error_about_a_row_rejects_the_event_with_the_servers_words(code: str) -> None:
    outcome = outcome_of_failure(server_error(code, detail="more"), WHERE)
    assert Rejected(f"SQLSTATE {code}", response=b"the server's words\nmore") == outcome


@pytest.mark.parametrize(
    "code", ["28P01", "28000", "3D000", "3F000", "42501", "42P01", "42703", "0A000", "55000"]
)
def test_an_error_about_the_settings_holds_the_destination(code: str) -> None:
    outcome = outcome_of_failure(server_error(code), WHERE)
    assert isinstance(outcome, Held)
    assert f"SQLSTATE {code}: the server's words" == outcome.reason


@pytest.mark.parametrize(
    "code",
    [
        *("08006", "53100", "53200", "53300", "57P01", "57P03", "57014", "40001", "40P01"),
        *("25006", "55P03", "58030", "XX000", "72000"),
    ],
)
def test_every_other_error_is_retried(code: str) -> None:
    outcome = outcome_of_failure(server_error(code), WHERE)
    assert isinstance(outcome, Retry)
    assert f"SQLSTATE {code}: the server's words" == outcome.reason


def test_a_missing_partition_is_not_the_fault_of_an_event() -> None:
    """Both are violations of a constraint, but only one of the constraints has a name."""
    named = outcome_of_failure(server_error("23514", constraint="short"), WHERE)
    assert isinstance(named, Rejected)
    unnamed = outcome_of_failure(server_error("23514", table="events"), WHERE)
    assert isinstance(unnamed, Held)
    assert unnamed.reason.endswith("create the partition, or a default one")
    raised = outcome_of_failure(server_error("23514"), WHERE)  # by a trigger
    assert isinstance(raised, Rejected)


def test_an_event_that_violates_a_policy_is_not_a_missing_permission() -> None:
    policy = server_error("42501", function="ExecWithCheckOptions")
    assert isinstance(outcome_of_failure(policy, WHERE), Rejected)
    assert isinstance(outcome_of_failure(server_error("42501"), WHERE), Held)


def test_a_bug_has_no_outcome() -> None:
    assert outcome_of_failure(KeyError("x"), WHERE) is None


def test_an_error_while_connecting_rejects_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(**_: object) -> None:
        raise server_error("22023")

    monkeypatch.setattr(asyncpg, "connect", connect)
    outcome = run(PostgresSender(SETTINGS).send(Batch(body=b"{}\n", events=1)))
    assert Held("SQLSTATE 22023", response=b"the server's words") == outcome


class FakeConnection:
    is_terminated = False

    def is_closed(self) -> bool:
        return self.is_terminated

    def is_in_transaction(self) -> bool:
        return False

    def terminate(self) -> None:
        self.is_terminated = True


def test_a_connection_that_was_idle_for_more_than_a_minute_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FakeConnection] = []

    async def connect(**_: Any) -> FakeConnection:
        made.append(FakeConnection())
        return made[-1]

    monkeypatch.setattr(asyncpg, "connect", connect)
    now_s = 0.0
    connections = Connections(SETTINGS, lambda: now_s)

    async def main() -> None:
        nonlocal now_s
        for each_s in (0.0, 60.0, 120.5):
            now_s = each_s
            async with connections.borrowed(asyncio.to_thread):
                pass

    run(main())
    assert [True, False] == [each.is_terminated for each in made]


def test_the_server_ends_a_transaction_that_takes_too_long() -> None:
    assert "SET LOCAL statement_timeout = 2500;" in Statements("t", 2.5).begin
