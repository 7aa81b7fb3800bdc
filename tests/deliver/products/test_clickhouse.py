"""ClickHouse: inserts that come again are dropped, and what its errors mean."""

from __future__ import annotations

from typing import Any

import pytest

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.clickhouse import ClickhouseSender
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Refused, Retry
from tests.deliver.products.clickhouse import Clickhouse, failure
from tests.deliver.products.events import message_id, tracked
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import Answer, FakeDestination, Script


def outcomes(server: Script, *batches: Batch, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with FakeDestination(server) as destination:
            settings.setdefault("table", "events")
            url = f"http://127.0.0.1:{destination.port}/"
            sender = ClickhouseSender(ClickhouseDestination(name="c", url=url, **settings))
            async with using(sender):
                return [await sender.send(each) for each in batches]

    return run(main())


@pytest.mark.parametrize("gzip", [False, True])
def test_a_batch_is_an_insert(gzip: bool) -> None:
    server = Clickhouse()
    assert [Accepted()] == outcomes(server, batch([tracked(1), tracked(2)]), gzip=gzip)
    assert [message_id(1), message_id(2)] == [row["messageId"] for row in server.rows]


def test_an_insert_that_comes_again_is_not_stored_twice_and_another_is() -> None:
    """The answer to the first got lost: ClickHouse drops the second by its token."""
    server = Clickhouse()
    events = [tracked(n) for n in range(10)]
    batches = [batch(events, "b1"), batch(events, "b1", 2), batch([tracked(10)], "b2")]
    assert [Accepted()] * 3 == outcomes(server, *batches)
    assert [message_id(n) for n in range(11)] == [row["messageId"] for row in server.rows]


def test_user_and_password_are_sent_in_headers() -> None:
    server = Clickhouse("pixels", "s3cret")
    sent = batch([tracked(1)])
    assert [Accepted()] == outcomes(server, sent, username="pixels", password="s3cret")
    (outcome,) = outcomes(server, sent, username="pixels", password="wr0ng")
    assert isinstance(outcome, Held)
    assert "status 403, code 516" == outcome.reason


@pytest.mark.parametrize("number", ["text", True])
def test_a_row_that_does_not_fit_is_refused_whatever_the_status(number: object) -> None:
    """ClickHouse answers 400 to some of these and 500 to others."""
    server = Clickhouse()
    (outcome,) = outcomes(server, batch([tracked(1), tracked(2, number=number)]))
    assert isinstance(outcome, Refused)
    assert b"at row 2" in outcome.answer
    assert [] == server.rows


@pytest.mark.parametrize(
    ("settings", "code"), [({"table": "other"}, 60), ({"database": "other"}, 81)]
)
def test_a_table_that_is_not_there_holds_it(settings: dict[str, str], code: int) -> None:
    (outcome,) = outcomes(Clickhouse(), batch([tracked(1)]), **settings)
    assert isinstance(outcome, Held)
    assert f"status 404, code {code}" == outcome.reason


def test_too_many_parts_are_waited_out() -> None:
    server = Clickhouse()
    server.is_over_parts = True
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Retry)
    assert (500, "status 500, code 252") == (outcome.status, outcome.reason)
    server.is_over_parts = False
    assert [Accepted()] == outcomes(server, batch([tracked(1)], attempt=2))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, 164, Held),  # READONLY: the user may not change settings
        (500, 497, Held),  # ACCESS_DENIED, of older servers
        (400, 62, Held),  # SYNTAX_ERROR
        (500, 241, Retry),  # MEMORY_LIMIT_EXCEEDED
        (500, 242, Retry),  # TABLE_IS_READ_ONLY: its keeper is away
        (503, 209, Retry),  # SOCKET_TIMEOUT
        (500, 319, Retry),  # UNKNOWN_STATUS_OF_INSERT
        (500, 469, Refused),  # VIOLATED_CONSTRAINT
        (200, 395, Retry),  # a 200 that went wrong later
    ],
)
def test_an_error_is_known_by_its_code(status: int, code: int, kind: type) -> None:
    (outcome,) = outcomes([failure(status, code, "why")], batch([tracked(1)]))
    assert kind is type(outcome)


def test_what_stands_in_front_of_it_is_known_by_its_status() -> None:
    script = [Answer(502, body=b"Bad Gateway"), Answer(404, body=b"")]
    first, second = outcomes(script, batch([tracked(1)]), batch([tracked(1)]))
    assert Retry("status 502", 0.0, 502, b"Bad Gateway") == first
    assert Held("status 404", 404) == second


def test_an_id_can_not_become_another_setting() -> None:
    server = Clickhouse()
    name = "b1&async_insert=1#x%41 ü"
    assert [Accepted()] == outcomes(server, batch([tracked(1)], name))
    assert [name] == list(server.tokens)
