"""ClickHouse: repeated inserts are dropped, and errors have outcomes."""

from __future__ import annotations

import json
import re
import time
import timeit
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.clickhouse import ClickhouseSender
from pixelfast.deliver.http.responses import Response
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry
from tests.deliver.products.clickhouse import Clickhouse, failure
from tests.deliver.products.events import message_id, tracked
from tests.deliver.running import run
from tests.deliver.senders import batch, using
from tests.fake_destination import FakeDestination, FakeResponse, Request, Script


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


def test_a_repeated_insert_is_stored_once_and_another_one_too() -> None:
    """The response to the first was lost, and ClickHouse drops the second by its token."""
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
def test_a_row_that_does_not_fit_is_rejected_alone_with_any_status(number: object) -> None:
    """ClickHouse responds 400 to some of these and 500 to others."""
    server = Clickhouse()
    events = [tracked(1), tracked(2, number=number), tracked(3)]
    first, second = outcomes(server, batch(events[1:2]), batch(events))
    assert isinstance(first, Rejected)
    assert b"at row 1" in first.response
    assert isinstance(second, Partial)
    assert [1] == list(second.failed)
    assert [message_id(1), message_id(3)] == [row["messageId"] for row in server.rows]


@pytest.mark.parametrize("bad", [{0}, {299}, {0, 299}, {1, 2, 3}, {5, 200, 205}, set(range(300))])
def test_rows_that_do_not_fit_are_found_by_their_numbers(bad: set[int]) -> None:
    server = Clickhouse()
    events = [tracked(n, number=f"text {n}" if n in bad else 1) for n in range(300)]
    for attempt in (1, 2):  # the same inserts with the same tokens, which the double drops
        (outcome,) = outcomes(server, batch(events, attempt=attempt))
        assert isinstance(outcome, Partial)
        assert bad == set(outcome.failed)
    good = [message_id(n) for n in range(300) if n not in bad]
    assert good == [row["messageId"] for row in server.rows]
    assert bool(good) == len(server.tokens)
    assert server.requests <= 2 * (2 * len(bad) + 20), "each is found, and then sent by itself"


def test_the_same_value_in_the_same_field_is_tested_once() -> None:
    server = Clickhouse()
    bad: dict[int, dict[str, Any]]
    bad = {n: [{"number": "text"}, {"number": {"a": 1}}][n % 8 // 4] for n in range(0, 1000, 4)}
    events = [
        tracked(n, **bad.get(n, {"number": 1, "nested": {"number": "text"}})) for n in range(1000)
    ]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    assert bad.keys() == outcome.failed.keys()
    assert 750 == len(server.rows)
    assert server.requests < 60, "and not 250"


@pytest.mark.parametrize("offset", [-1, 1, 100])
def test_the_batch_is_halved_for_a_server_that_counts_rows_differently(offset: int) -> None:
    """No good event becomes a dead letter."""

    class Miscounting(Clickhouse):
        def __call__(self, request: Request) -> FakeResponse:
            response = super().__call__(request)
            return replace(
                response,
                body=re.sub(
                    rb"at row (\d+)",
                    lambda row: b"at row %d" % (int(row[1]) + offset),
                    response.body,
                ),
            )

    server = Miscounting()
    events = [tracked(n, number="text" if n == 2 else 1) for n in range(10)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Rejected)
    assert [] == server.rows


def test_a_row_number_inside_an_event_is_not_trusted() -> None:
    """A truncated response may lack the server's own words, which are at its end."""
    text = "before: '" + "(at row 1)" * 10_000
    sender = ClickhouseSender(ClickhouseDestination(name="c", url="http://127.0.0.1:1", table="t"))
    body = f"Code: 27. DB::Exception: Cannot parse input: {text}': (at row 7)".encode()
    sent = batch([tracked(n) for n in range(9)])
    cut = sender.judge(Response(400, None, body[: sender.max_response_bytes]), sent)
    assert Rejected("status 400, code 27", 400, body[:1024]) == cut


@pytest.mark.parametrize("taken", [1, 2])
def test_the_batch_is_halved_for_a_server_that_skips_broken_rows(taken: int) -> None:
    bad = failure(400, 27, "Cannot parse input: (at row 1)")
    script = [bad, *[bad] * (taken - 1), *[FakeResponse()] * 20]
    (outcome,) = outcomes(script, batch([tracked(n) for n in range(100)]))
    assert isinstance(outcome, Rejected)


def test_rows_that_violate_a_constraint_are_found_by_their_numbers() -> None:
    """Like ClickHouse, check constraints one after the other after all rows are parsed."""
    stored: list[int] = []

    def server(request: Request) -> FakeResponse:
        numbers = []
        for row, line in enumerate(request.plain_body.split(b"\n")[:-1], 1):
            try:
                numbers.append(json.loads(line)["number"])
            except ValueError:
                return failure(400, 27, f"Cannot parse input: (at row {row})")
        for name, limit in (("a", 1000), ("b", 500)):
            for row, number in enumerate(numbers, 1):
                if number >= limit:
                    quoted = "x = 'is violated at row 1. Expression: (at row 1)'"
                    text = f"Constraint `{name}` for table default.events is violated at row {row}."
                    return failure(
                        500, 469, f"{text} Expression: (number < {limit}). Column values: {quoted}."
                    )
        stored.extend(numbers)
        return FakeResponse()

    events = [tracked(n, number=n % 7 * 200) for n in range(700)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    assert {n for n in range(700) if n % 7 * 200 >= 500} == set(outcome.failed)
    assert [n % 7 * 200 for n in range(700) if n % 7 * 200 < 500] == stored


FORGED_ROWS = [
    "(at row 1)",
    "(at row 1)\n",
    "(while reading the value of key event): (at row 1)\n: While executing X",
    "(while reading the value of key event): (at row 1)\n: While executing X. (Y)",
]


@pytest.mark.parametrize("forged", FORGED_ROWS)
@pytest.mark.parametrize("place", [0, 9, 99])
@pytest.mark.parametrize(
    "text", ["Cannot parse '%s' as UInt32: while executing 'f'.", "Unknown %s"]
)
def test_no_row_is_rejected_or_stored_alone_for_a_quotation_in_an_expression_error(
    forged: str, place: int, text: str
) -> None:
    """Not even if the response ends with it: columns are computed after all rows are parsed."""

    def server(request: Request) -> FakeResponse:
        lines = request.plain_body.split(b"\n")[:-1]
        for row, line in enumerate(lines, 1):
            if line == b"!":
                return failure(400, 27, f"Cannot parse input: (at row {row})")
        values = [json.loads(line).get("value") for line in lines]
        if forged in values:
            return FakeResponse(400, body=b"Code: 6. DB::Exception: " + (text % forged).encode())
        assert len(lines) > 1, "an innocent row was inserted by itself"
        return FakeResponse()

    events = [tracked(n, value=forged if n == place else "7") for n in range(100)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Rejected), "it is halved"


def test_no_row_is_rejected_for_an_error_that_another_row_imitates() -> None:
    """This server computes columns row by row, before it parses the broken row."""
    forged = "(while reading the value of key event): (at row 1)\n: While executing X"

    def server(request: Request) -> FakeResponse:
        for row, line in enumerate(request.plain_body.split(b"\n")[:-1], 1):
            if line == b"!":
                return failure(400, 27, f"Cannot parse input: (at row {row})")
            if json.loads(line).get("value") == forged:
                return FakeResponse(400, body=f"Code: 6. DB::Exception: Unknown {forged}".encode())
        return FakeResponse()

    events = [tracked(n, value=forged if n == 9 else "7") for n in range(100)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Rejected), "it is halved"


def test_a_value_is_known_as_bad_only_after_it_failed_alone() -> None:
    """The response names a key that is not the cause."""

    def server(request: Request) -> FakeResponse:
        for row, line in enumerate(request.plain_body.split(b"\n")[:-1], 1):
            if line == b"!" or json.loads(line).get("number") == "text":
                key = "(while reading the value of key event): "
                return failure(400, 27, f"Cannot parse input: {key}(at row {row})")
        return FakeResponse()

    events = [tracked(n, number="text" if n == 9 else 1, event="Order Placed") for n in range(100)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    assert [9] == list(outcome.failed)


def test_numbers_that_differ_only_in_their_last_digits_are_different_values() -> None:
    large = 2**70

    def server(request: Request) -> FakeResponse:
        for row, line in enumerate(request.plain_body.split(b"\n")[:-1], 1):
            if line == b"!" or json.loads(line).get("number") == large:
                key = "(while reading the value of key number): "
                return failure(400, 27, f"Cannot parse input: {key}(at row {row})")
        return FakeResponse()

    lines = [b'{"number":%d}' % (large + n) for n in range(20)]
    sent = Batch(id="b1", body=b"\n".join(lines) + b"\n", events=len(lines))
    (outcome,) = outcomes(server, sent)
    assert isinstance(outcome, Partial)
    assert [0] == list(outcome.failed)


def test_a_violated_constraint_has_no_key() -> None:
    """The response quotes values, and has the row number in the server's own words."""
    hostile = "(while reading the value of key event): (at row 1)\n"

    def server(request: Request) -> FakeResponse:
        lines = request.plain_body.split(b"\n")[:-1]
        for row, line in enumerate(lines, 1):
            if line == b"!":
                return failure(400, 27, f"Cannot parse input: (at row {row})")
        for row, line in enumerate(lines, 1):
            if len(country := json.loads(line).get("country", "")) > 2:
                text = f"Constraint `c` for table default.events is violated at row {row}."
                values = f"Column values: country = '{country}'."
                return failure(500, 469, f"{text} Expression: (length(country) <= 2). {values}")
        return FakeResponse()

    events = [tracked(n, event="Order", country=hostile if n == 9 else "DE") for n in range(50)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Partial)
    assert [9] == list(outcome.failed)


def test_constraints_of_other_tables_refer_to_other_rows() -> None:
    """A view's target table has the view's rows, so the batch is halved."""
    text = "Constraint `c` for table default.target (made-up) is violated at row 1. Expression: "
    bad = failure(500, 469, text)
    script = [bad, *[failure(400, 27, "Cannot parse input: (at row 1)")] * 20]
    (outcome,) = outcomes(script, batch([tracked(n) for n in range(100)]))
    assert Rejected("status 500, code 469", 500, bad.body) == outcome


@pytest.mark.parametrize("offset", [-1, 1, 50])
def test_the_batch_is_halved_for_a_server_that_counts_violations_differently(offset: int) -> None:
    """No good row is sent alone, because it would be stored."""

    def server(request: Request) -> FakeResponse:
        lines = request.plain_body.split(b"\n")[:-1]
        for row, line in enumerate(lines, 1):
            if line == b"!":
                return failure(400, 27, f"Cannot parse input: (at row {row})")
        for row, line in enumerate(lines, 1):
            if json.loads(line)["number"] == 9:
                text = f"Constraint `c` for table default.events is violated at row {row + offset}."
                return failure(500, 469, f"{text} Expression: ")
        raise AssertionError("stored")

    events = [tracked(n, number=n) for n in range(100)]
    (outcome,) = outcomes(server, batch(events))
    assert isinstance(outcome, Rejected)


def test_a_failure_of_the_search_is_the_outcome_of_the_batch() -> None:
    bad = failure(400, 27, "Cannot parse input: (at row 1)")
    sent = batch([tracked(n) for n in range(100)])
    for response, kind in ((FakeResponse(503), Retry), (failure(403, 516, "no"), Held)):
        (outcome,) = outcomes([bad, bad, *[response] * 20], sent)
        assert kind is type(outcome)


def test_settings_that_a_server_does_not_know_are_left_out() -> None:
    server = Clickhouse()
    server.unknown_settings = {
        "async_insert",
        "insert_deduplication_token",
        "deduplicate_blocks_in_dependent_materialized_views",
    }
    sent = [batch([tracked(n)], f"b{n}") for n in range(3)]
    assert [Accepted()] * 3 == outcomes(server, *sent)
    assert 3 + 3 == server.requests, "it is remembered"


def test_another_unknown_setting_holds_the_destination() -> None:
    server = Clickhouse()
    server.unknown_settings = {"date_time_input_format"}
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Held)


def test_views_drop_repeated_batches() -> None:
    requests: list[Request] = []

    def server(request: Request) -> FakeResponse:
        requests.append(request)
        return FakeResponse()

    assert [Accepted()] == outcomes(server, batch([tracked(1)]))
    assert "&deduplicate_blocks_in_dependent_materialized_views=1&" in requests[0].path


@pytest.mark.parametrize(
    ("settings", "code"), [({"table": "other"}, 60), ({"database": "other"}, 81)]
)
def test_a_missing_table_holds_the_destination(settings: dict[str, str], code: int) -> None:
    (outcome,) = outcomes(Clickhouse(), batch([tracked(1)]), **settings)
    assert isinstance(outcome, Held)
    assert f"status 404, code {code}" == outcome.reason


def test_too_many_parts_are_retried() -> None:
    server = Clickhouse()
    server.is_over_parts = True
    (outcome,) = outcomes(server, batch([tracked(1)]))
    assert isinstance(outcome, Retry)
    assert (500, "status 500, code 252") == (outcome.status, outcome.reason)
    server.is_over_parts = False
    assert [Accepted()] == outcomes(server, batch([tracked(1)], attempt=2))


def test_the_batch_is_halved_for_too_many_partitions_of_one_insert() -> None:
    response = failure(500, 252, "Too many partitions for single INSERT block (more than 100)")
    one, two = outcomes([response] * 2, batch([tracked(1)]), batch([tracked(1), tracked(2)]))
    assert [Retry, Rejected] == [type(one), type(two)]


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (36, "Unknown element 'x' for enum: (while reading the value of key e): ", Rejected),
        (49, "Unknown element 'x' for type Enum8: (while read the value of key e)", Rejected),
        (395, "no: while executing 'FUNCTION throwIf(value :: 1) -> throwIf(value) : 2'", Rejected),
        (241, "Memory limit exceeded: while executing 'FUNCTION f(x)': (at row 1)", Retry),
        (49, "Code: 497. DB::Exception: quoted", Retry),
        (36, "Bad arguments", Held),
        (27, "before: 'Code: 497. DB::Exception: no'", Rejected),
    ],
)
def test_an_error_is_recognized_by_the_servers_own_words_not_by_quotations(
    code: int, text: str, kind: type
) -> None:
    (outcome,) = outcomes([failure(500, code, text)], batch([tracked(1)]))
    assert kind is type(outcome)


@pytest.mark.parametrize(
    "text",
    [
        b"Code: 1. ",
        b"Code: 1. DB::",
        b"Code: 1. DB::a",
        b"Code: 6. DB::Exception: (while reading the value of key x): (at row 1)\n",
        b"Code: 6. DB::Exception: (at row 1)\n: While executing X. (X) (X). (X) (version x)",
        b"Code: 469. DB::Exception: Constraint Constraint for table default.t for table default.",
    ],
)
def test_the_longest_response_is_judged_in_linear_time(text: bytes) -> None:
    """At most 2 ms of CPU time; a quadratic pattern takes 250 ms."""
    sender = ClickhouseSender(ClickhouseDestination(name="c", url="http://127.0.0.1:1", table="t"))
    size = sender.max_response_bytes
    response, sent = Response(500, None, (text * size)[:size]), batch([tracked(1)])
    timer = timeit.Timer(lambda: sender.judge(response, sent), timer=time.thread_time)
    assert min(timer.repeat(5, number=1)) < 0.05


@pytest.mark.parametrize(
    "end",
    [
        b": While executing ParallelParsingBlockInputFormat. (CANNOT_PARSE_TEXT)",
        b": While executing X. (CANNOT_PARSE_TEXT) (version 24.8.1.1 (official build))\n",
        b": While executing X: While executing Y. (Z) (version 26.9.2.1). (Z)",
        b": While executing X: data for INSERT was parsed from query. (Z) (version 26.9.2.1). (Z)",
        b" (version 20.8.3.18 (official build))\n",
    ],
)
def test_a_row_number_is_recognized_by_everything_after_it(end: bytes) -> None:
    sender = ClickhouseSender(ClickhouseDestination(name="c", url="http://127.0.0.1:1", table="t"))
    body = b"Code: 6. DB::Exception: no: (while reading the value of key k): (at row 7)\n" + end
    sent = batch([tracked(n) for n in range(9)])
    found = sender.judge(Response(400, None, body), sent)
    assert ("k", 7) == (getattr(found, "key", None), getattr(found, "row", None))
    quoted = sender.judge(Response(400, None, body.rstrip(b"\n") + b"' as UInt32: no"), sent)
    assert isinstance(quoted, Rejected)
    assert ("status 400, code 6", 400) == (quoted.reason, quoted.status)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, 164, Held),  # READONLY: the user may not change settings
        (500, 497, Held),  # ACCESS_DENIED, of older servers
        (400, 62, Held),  # SYNTAX_ERROR
        (500, 241, Retry),  # MEMORY_LIMIT_EXCEEDED
        (500, 242, Retry),  # TABLE_IS_READ_ONLY: its keeper is unavailable
        (503, 209, Retry),  # SOCKET_TIMEOUT
        (500, 319, Retry),  # UNKNOWN_STATUS_OF_INSERT
        (500, 131, Rejected),  # TOO_LARGE_STRING_SIZE
        (500, 190, Rejected),  # SIZES_OF_ARRAYS_DONT_MATCH
        (500, 469, Rejected),  # VIOLATED_CONSTRAINT
        (500, 691, Rejected),  # UNKNOWN_ELEMENT_OF_ENUM
        (400, 44, Held),  # ILLEGAL_COLUMN
        (500, 10, Held),  # NOT_FOUND_COLUMN_IN_BLOCK
        (200, 395, Retry),  # an error after status 200
    ],
)
def test_an_error_is_recognized_by_its_code(status: int, code: int, kind: type) -> None:
    (outcome,) = outcomes([failure(status, code, "why")], batch([tracked(1)]))
    assert kind is type(outcome)


def test_a_response_of_a_proxy_is_judged_by_its_status() -> None:
    script = [FakeResponse(502, body=b"Bad Gateway"), FakeResponse(404, body=b"")]
    first, second = outcomes(script, batch([tracked(1)]), batch([tracked(1)]))
    assert Retry("status 502", 0.0, 502, b"Bad Gateway") == first
    assert Held("status 404", 404) == second


def test_an_id_can_not_become_another_setting() -> None:
    server = Clickhouse()
    name = "b1&async_insert=1#x%41 ü"
    assert [Accepted()] == outcomes(server, batch([tracked(1)], name))
    assert [name] == list(server.tokens)


# --- settings of the operator -----------------------------------------------------------------


def test_settings_of_the_operator_are_sent_with_every_insert() -> None:
    queries: list[dict[str, str]] = []
    server = Clickhouse()

    def watch(request: Request) -> FakeResponse:
        queries.append(dict(parse_qsl(urlsplit(request.path).query)))
        return server(request)

    bad = tracked(2, number="zz")
    given = {"insert_quorum": "auto", "optimize_on_insert": True, "max_execution_time": 2.5}
    (outcome,) = outcomes(watch, batch([tracked(1), bad]), settings=given)
    assert isinstance(outcome, Partial)
    assert len(queries) > 2, "the bad row was searched for"
    expected = {"insert_quorum": "auto", "optimize_on_insert": "1", "max_execution_time": "2.5"}
    assert all(expected.items() <= query.items() for query in queries)
    assert all("0" == query["async_insert"] for query in queries)


def test_an_unknown_setting_of_the_operator_holds_the_destination_and_keeps_the_others() -> None:
    """The server suggests a setting of pixelfast, which it knows and which must stay."""
    text = "Unknown setting 'asink_insert'. Maybe you meant ['async_insert']"
    queries: list[str] = []

    def reject(request: Request) -> FakeResponse:
        queries.append(request.path)
        return failure(404, 115, text)

    sent = batch([tracked(1)])
    for outcome in outcomes(reject, sent, sent, settings={"asink_insert": 1}):
        assert isinstance(outcome, Held)
        assert "status 404, code 115" == outcome.reason
    assert 2 == len(queries)
    assert all("async_insert=0" in query for query in queries)
