"""A ClickHouse table; a batch is one INSERT, and ClickHouse drops a repeated one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TypeGuard
from urllib.parse import quote, urlencode

import msgspec
from yarl import URL

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.http.responses import Response, classify
from pixelfast.deliver.http.sender import HttpSender, shared_options
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Rejected, Retry

__all__ = ["ClickhouseSender"]

# Error codes from ErrorCodes.cpp. The HTTP status of most of them is 500.
_ROW_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        407,  # DECIMAL_OVERFLOW
        441,  # CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
        675,  # CANNOT_PARSE_IPV4
        676,  # CANNOT_PARSE_IPV6
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
_SETTINGS_CODES = frozenset(
    {
        8,  # THERE_IS_NO_COLUMN
        10,  # NOT_FOUND_COLUMN_IN_BLOCK
        15,  # DUPLICATE_COLUMN
        16,  # NO_SUCH_COLUMN_IN_TABLE
        20,  # NUMBER_OF_COLUMNS_DOESNT_MATCH
        36,  # BAD_ARGUMENTS
        43,  # ILLEGAL_TYPE_OF_ARGUMENT
        44,  # ILLEGAL_COLUMN
        46,  # UNKNOWN_FUNCTION
        47,  # UNKNOWN_IDENTIFIER
        48,  # NOT_IMPLEMENTED
        50,  # UNKNOWN_TYPE
        60,  # UNKNOWN_TABLE
        62,  # SYNTAX_ERROR
        73,  # UNKNOWN_FORMAT
        81,  # UNKNOWN_DATABASE
        115,  # UNKNOWN_SETTING
        164,  # READONLY
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        195,  # IP_ADDRESS_NOT_ALLOWED
        291,  # DATABASE_ACCESS_DENIED
        452,  # SETTING_CONSTRAINT_VIOLATION
        472,  # READONLY_SETTING
        497,  # ACCESS_DENIED
        512,  # SET_NON_GRANTED_ROLE
        516,  # AUTHENTICATION_FAILED
    }
)
# Temporary problems of the server or its environment, whatever else the response says.
_LOAD_CODES = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        173,  # CANNOT_ALLOCATE_MEMORY
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        203,  # NO_FREE_CONNECTION
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        439,  # CANNOT_SCHEDULE_TASK
        999,  # KEEPER_EXCEPTION
    }
)
_TOO_MANY_PARTS = 252
_VIOLATED_CONSTRAINT = 469
_OPTIONAL_CODES = frozenset({115, 452})  # UNKNOWN_SETTING, SETTING_CONSTRAINT_VIOLATION
# Settings that old servers do not know; they are omitted if a server rejects them.
_OPTIONAL = (
    "deduplicate_blocks_in_dependent_materialized_views",
    "insert_deduplication_token",
    "async_insert",
)

# A response quotes values of events, which may hold line feeds and imitate the server's words.
# Three parts of it are certainly the server's own: the first code; a row number that only known
# phrases follow up to the end of the response, with the key before it; and the row number of a
# violated constraint, which precedes any quotation. Errors of expressions name no row.
_CODE = re.compile(rb"Code: (\d{1,5})(?:\.|, e\.displayText\(\) =) DB::\w{0,20}Exception")
_ROW = re.compile(
    rb"(?:\(while read(?:ing)? the value of key ([^()\s]{1,200})\): )?\(at row (\d{1,9})\)\n"
    rb"(?:: While executing \w{1,64}|: data for INSERT was parsed from \w{1,64}|\.| \(\w{1,64}\)"
    rb"| \(version [^()\n]{1,64}(?:\([^()\n]{1,64}\))?\)){0,12}\n?\Z"
)
# Errors about a value that a column, default, constraint or view cannot be computed from.
_SAYS_ROW = re.compile(
    rb"at row \d|\(while read(?:ing)? the value of key |while executing 'FUNCTION "
)
_BROKEN_ROW = b"!"  # not JSON: an insert fails at this row at the latest
_MIN_ROWS, _FIRST_ROWS, _MAX_ROWS = 16, 256, 1024  # rows per request
_MAX_KINDS = 8  # of errors in a batch: unparsable rows, and each violated constraint
_SEARCHES = 8  # concurrent requests of one batch, because each finds only one row


class _RejectedRow(Rejected, frozen=True, gc=False):
    """The insert failed at `row`, counted from 1; no earlier row fails in the same way.

    The row could not be parsed (`key` is the field, if the response names it), or it violates a
    constraint.
    """

    row: int = 0
    key: str = ""
    is_violation: bool = False


class _HeldBySetting(Held, frozen=True, gc=False):
    """The server does not know a setting of the query, or the user may not change it."""

    setting: str = ""


class ClickhouseSender(HttpSender):
    """Send POST {url}/?query=INSERT INTO `database`.`table` FORMAT JSONEachRow, one row per event.

    Source: ClickHouse's documentation, "HTTP Interface" and "Deduplicating Inserts on Retries": the
    response to an insert with a known insert_deduplication_token is 200, and its rows are dropped.
    Tables of the ReplicatedMergeTree family remember tokens by default, other tables with the
    setting `non_replicated_deduplication_window`. The response is sent when the rows are written
    (no async_insert).

    An insert is stored as a whole or not at all. Rows that cannot be parsed or that violate a
    constraint are found by the row number in the response, and the other rows are inserted without
    them. A value in one row may imitate an error about another row. A row is therefore rejected as
    unparsable only after a request without the other rows has also failed. If the response has no
    trustworthy row number, the batch is halved.
    """

    def __init__(self, settings: ClickhouseDestination) -> None:
        self._base = settings.url.rstrip("/")
        self._query = {
            # The settings guarantee that the identifiers contain no quotes.
            "query": f"INSERT INTO `{settings.database}`.`{settings.table}` FORMAT JSONEachRow",
            "async_insert": "0",
            "wait_end_of_query": "1",  # otherwise an error could follow a 200
            "input_format_skip_unknown_fields": "1",
            "date_time_input_format": "best_effort",  # accepts 2026-01-31T00:00:00.000Z
            "deduplicate_blocks_in_dependent_materialized_views": "1",
            **{name: _parameter(value) for name, value in settings.settings.items()},
        }
        self._given = [name.encode() for name in settings.settings]
        # An error about a constraint of a view's target table counts the rows of that table.
        self._violated = re.compile(
            rb"[^'\n]{0,300}Constraint [^'\n]{1,300} for table `?%s`?\.`?%s`?"
            rb"(?: \([0-9a-f-]{36}\))? is violated at row (\d{1,9})\. Expression: "
            % (re.escape(settings.database.encode()), re.escape(settings.table.encode()))
        )
        self._unsupported: set[str] = set()  # settings of _OPTIONAL that this server rejected
        headers = {"X-ClickHouse-User": settings.username}
        if settings.password:
            headers["X-ClickHouse-Key"] = settings.password
        super().__init__(self._base, "ndjson", headers=headers, **shared_options(settings))

    async def open(self, memory: dict[str, object]) -> None:
        self._unsupported.clear()
        await super().open(memory)

    def url_of(self, batch: Batch) -> URL:
        options = self._query | {"insert_deduplication_token": batch.id}
        query = {name: text for name, text in options.items() if name not in self._unsupported}
        return URL(f"{self._base}/?{urlencode(query, quote_via=quote)}", encoded=True)

    async def attempt(self, batch: Batch) -> Outcome:
        outcome = await super().attempt(batch)
        for _ in _OPTIONAL:
            if not isinstance(outcome, _HeldBySetting):
                break
            self._unsupported.add(outcome.setting)
            outcome = await super().attempt(batch)
        if isinstance(outcome, _RejectedRow) and batch.events > 1:
            return await self._insert_others(batch, outcome)
        return outcome

    async def _insert_others(self, batch: Batch, first: _RejectedRow) -> Outcome:
        """Find all bad rows, and insert the others in one insert.

        Dividing the batch would create inserts, and thus parts of the table, of a few rows each.
        Instead, rows are sent with a bad row after them: nothing is stored, and the response tells
        which row fails first. That bad row is unparsable at first. Because constraints are checked
        after all rows are parsed, it is later a row that violated a constraint.
        """
        lines = batch.lines()
        rejected: dict[int, Rejected | Retry] = {}
        outcome = await self._send_rows(batch, [_BROKEN_ROW], "0")
        if not _blames(outcome, 1):  # the server counts rows differently
            return _not_accepted(outcome, first)
        bad_row = _BROKEN_ROW
        for _ in range(_MAX_KINDS):
            problem = await self._search(batch, lines, rejected, bad_row, first)
            if problem is not None:
                return problem
            rest = [lines[n] for n in range(len(lines)) if n not in rejected]
            if not rest:
                return Partial.of(rejected)
            # A token that differs from the whole batch's, and is the same on a retry.
            digest = hashlib.blake2s(repr(sorted(rejected)).encode(), digest_size=8).hexdigest()
            outcome = await self._send_rows(batch, rest, f"but-{digest}")
            if isinstance(outcome, Accepted):
                return Partial.of(rejected)
            if not _blames(outcome, len(rest), is_violation=True):
                return outcome
            bad_row = rest[outcome.row - 1]
            # Verify the row number, in an insert that fails even if the number is wrong.
            outcome = await self._send_rows(batch, [bad_row, *rest], f"first-{digest}")
            if not _blames(outcome, 1, is_violation=True):
                return _not_accepted(outcome, first)
        return first

    async def _search(
        self,
        batch: Batch,
        lines: list[bytes],
        rejected: dict[int, Rejected | Retry],
        bad_row: bytes,
        first: _RejectedRow,
    ) -> Outcome | None:
        """Add all rows that fail like `bad_row` to `rejected`; return what prevented it."""
        problems: list[Outcome] = []
        known = _KnownValues()
        is_violation = bad_row is not _BROKEN_ROW

        async def search(place: int, stop: int) -> None:
            tried = _FIRST_ROWS
            while place < stop and not problems:
                asked: list[int] = []
                while place < stop and len(asked) < tried:
                    if (same := known.rejection_of(lines[place])) is not None:
                        rejected[place] = same
                    elif place not in rejected:
                        asked.append(place)
                    place += 1
                rows = [*(lines[n] for n in asked), bad_row]
                outcome = await self._send_rows(batch, rows, f"to-{place}")
                if not _blames(outcome, len(rows), is_violation=is_violation):
                    problems.append(_not_accepted(outcome, first))
                elif outcome.row < len(rows):
                    bad = asked[outcome.row - 1]
                    proof = outcome
                    if not is_violation:
                        confirmed = await self._confirm(batch, lines[bad], outcome.key, known, bad)
                        if not _blames(confirmed, 1):
                            problems.append(_not_accepted(confirmed, first))
                            return
                        proof = confirmed
                    rejected[bad] = proof
                    place = bad + 1
                    tried = max(_MIN_ROWS, 4 * outcome.row)
                else:
                    tried *= 4
                tried = min(tried, _MAX_ROWS)

        step = max(_MIN_ROWS, -(-len(lines) // _SEARCHES))
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(lines), step):
                group.create_task(search(start, min(start + step, len(lines))))
        return problems[0] if problems else None

    async def _confirm(
        self, batch: Batch, line: bytes, key: str, known: _KnownValues, place: int
    ) -> Outcome:
        """Return the outcome of a row on its own; nothing is stored, as a broken row follows.

        The field is sent without the row first. If that fails, each row with this value fails.
        """
        if (raw := _values(line).get(key)) is not None:
            value = bytes(raw)
            field = b"{%s:%s}" % (msgspec.json.encode(key), value)
            outcome = await self._send_rows(batch, [field, _BROKEN_ROW], f"field-{place}")
            if not _blames(outcome, 2):
                return outcome
            if outcome.row == 1:
                known.learn(key, value, outcome)
                return outcome
        return await self._send_rows(batch, [line, _BROKEN_ROW], f"only-{place}")

    async def _send_rows(self, batch: Batch, rows: list[bytes], name: str) -> Outcome:
        """Insert some of a batch's rows; the token consists of the batch's id and `name`."""
        body = b"\n".join(rows) + b"\n"
        part = Batch(
            id=f"{batch.id}-{name}",
            attempt=batch.attempt,
            body=body,
            events=len(rows),
        )
        return await super().attempt(part)

    def judge(self, response: Response, batch: Batch) -> Outcome:
        """Return the outcome by the error code in the response, or by the status if it has none."""
        outcome = classify(response)
        match = _CODE.search(response.body)
        if match is None:
            return outcome
        code, kept = int(match[1]), response.body[:1024]
        reason = f"status {response.status}, code {code}"
        # An error about a setting of the operator may suggest a similar one.
        if code in _OPTIONAL_CODES and not any(name in response.body for name in self._given):
            for name in _OPTIONAL:
                if name.encode() in response.body:
                    return _HeldBySetting(reason, response.status, kept, setting=name)
        if code == _TOO_MANY_PARTS and b"Too many partitions" in response.body and batch.events > 1:
            # The limit applies to an insert, so half of the batch may be below it.
            return Rejected(reason, response.status, kept)
        if code not in _LOAD_CODES and code != _TOO_MANY_PARTS:
            if code == _VIOLATED_CONSTRAINT:
                if violated := self._violated.match(response.body):
                    row = int(violated[1])
                    return _RejectedRow(reason, response.status, kept, row=row, is_violation=True)
            elif len(response.body) < self.max_response_bytes and (
                at := _ROW.search(response.body)
            ):
                key = (at[1] or b"").decode(errors="replace")
                return _RejectedRow(reason, response.status, kept, row=int(at[2]), key=key)
            if code in _ROW_CODES or _SAYS_ROW.search(response.body):
                return Rejected(reason, response.status, kept)
        if code in _SETTINGS_CODES:
            return Held(reason, response.status, kept)
        if isinstance(outcome, Retry):
            return Retry(reason, outcome.after_s, response.status, kept)
        if isinstance(outcome, Accepted):  # "HTTP response codes caveats": the error follows a 200
            return Retry(reason, 0.0, response.status, kept)
        return outcome


def _parameter(value: str | float) -> str:
    """Return the value of a setting as in a URL."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _blames(outcome: Outcome, rows: int, *, is_violation: bool = False) -> TypeGuard[_RejectedRow]:
    """Whether one of the first `rows` rows failed, for the expected kind of error."""
    return (
        isinstance(outcome, _RejectedRow)
        and outcome.is_violation == is_violation
        and 1 <= outcome.row <= rows
    )


def _not_accepted(outcome: Outcome, first: Rejected) -> Outcome:
    """Return the outcome of a batch after an unexpected response: the batch is not stored."""
    return first if isinstance(outcome, Accepted) else outcome


def _values(line: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a row with their values as JSON, so that numbers keep all digits."""
    return msgspec.json.decode(line, type=dict[str, msgspec.Raw])


class _KnownValues:
    """Values that a column does not accept; a client that sends one often repeats it."""

    def __init__(self) -> None:
        self._rejections: dict[str, dict[bytes, Rejected]] = {}

    def learn(self, key: str, value: bytes, rejection: Rejected) -> None:
        self._rejections.setdefault(key, {})[value] = rejection

    def rejection_of(self, line: bytes) -> Rejected | None:
        """Return the rejection of a row with a known value, or None."""
        if not self._rejections:
            return None
        fields = _values(line)
        for key, rejections in self._rejections.items():
            value = fields.get(key)
            if value is not None and (rejection := rejections.get(bytes(value))) is not None:
                return rejection
        return None
