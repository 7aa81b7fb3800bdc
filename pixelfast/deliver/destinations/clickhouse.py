"""A ClickHouse table: a batch is one INSERT, and one that comes again is dropped there."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import orjson
from yarl import URL

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.answers import Answer, classify
from pixelfast.deliver.destinations.http import HttpSender, shared_options
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry

__all__ = ["ClickhouseSender"]

# Of ErrorCodes.cpp. Its statuses are too coarse: most of these come as 500.
_OF_ROWS = frozenset(
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
_OF_SETTINGS = frozenset(
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
# What the server or those around it lack for now, whatever else the text says.
_OF_LOAD = frozenset(
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
_OF_A_SETTING = frozenset({115, 452})  # UNKNOWN_SETTING, SETTING_CONSTRAINT_VIOLATION
# Old servers do without what these ask for.
_OPTIONAL = (
    "deduplicate_blocks_in_dependent_materialized_views",
    "insert_deduplication_token",
    "async_insert",
)

# Answers quote rows, which strangers write: the first code and the last row are the server's.
_CODE = re.compile(rb"Code: (\d{1,5})(?:\.|, e\.displayText\(\) =) DB::\w{0,20}Exception")
_ROW = re.compile(rb"\(at row (\d{1,9})\)")
_VIOLATED = re.compile(rb"is violated at row (\d{1,9})\. Expression: ")  # before what it quotes
_KEY = re.compile(rb"\(while read(?:ing)? the value of key ([^()\s]{1,200})\)")
# A value that a column, its default, a constraint or a view cannot be computed from.
_SAYS_ROW = re.compile(
    rb"at row \d|\(while read(?:ing)? the value of key |while executing 'FUNCTION "
)
_BROKEN_ROW = b"!"  # no row of JSONEachRow: the insert fails here if not before
_FEWEST_TRIED, _TRIED_FIRST, _MOST_TRIED = 16, 256, 1024  # rows of a request
_MOST_KINDS = 8  # of bad rows in a batch: those that cannot be read, and constraints
_SEARCHES = 8  # requests of one batch under way at once: each finds one row, and has to come back


@dataclass(frozen=True, slots=True)
class _RefusedRow(Refused):
    """`row` is to blame, counted from 1; none before it fails in the same way.

    `key` is the field whose value could not be read, if the answer names it.
    """

    row: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class _HeldBySetting(Held):
    """A setting of the query that the server does not know or the user may not change."""

    setting: str = ""


class ClickhouseSender(HttpSender):
    """POST {url}/?query=INSERT INTO `database`.`table` FORMAT JSONEachRow, a row an event.

    Source: ClickHouse's documentation, "HTTP Interface" and "Deduplicating Inserts on Retries":
    an insert whose insert_deduplication_token the table has seen is dropped and answered with 200.
    Tables of the ReplicatedMergeTree family remember tokens by themselves, others once they have
    `non_replicated_deduplication_window`. The answer comes when the rows are written (no
    async_insert).

    An insert is stored as a whole or not at all. Rows that cannot be read or violate a constraint
    are found by the number in the answer, and the others are inserted without them.
    """

    def __init__(self, settings: ClickhouseDestination) -> None:
        self._base = settings.url.rstrip("/")
        self._query = {
            # Identifiers are checked by the settings: no quote is in them.
            "query": f"INSERT INTO `{settings.database}`.`{settings.table}` FORMAT JSONEachRow",
            "async_insert": "0",
            "wait_end_of_query": "1",  # or a failure could come after a 200
            "input_format_skip_unknown_fields": "1",
            "date_time_input_format": "best_effort",  # takes 2026-01-31T00:00:00.000Z
            "deduplicate_blocks_in_dependent_materialized_views": "1",
        }
        self._unsupported: set[str] = set()  # of _OPTIONAL, found out since the start
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

    async def _send(self, batch: Batch) -> Outcome:
        outcome = await super()._send(batch)
        for _ in _OPTIONAL:
            if not isinstance(outcome, _HeldBySetting):
                break
            self._unsupported.add(outcome.setting)
            outcome = await super()._send(batch)
        if isinstance(outcome, _RefusedRow) and batch.events > 1:
            return await self._insert_others(batch, outcome)
        return outcome

    async def _insert_others(self, batch: Batch, first: _RefusedRow) -> Outcome:
        """Find all rows that are to blame, and insert the others in one insert.

        Halving would make an insert, and so a part of the table, of a few rows each. Here rows are
        sent with a bad row behind them: nothing is stored, and the answer tells how far they are
        good. First that is a row that cannot be read; constraints are checked after all rows are
        read, so then it is the row that violated one.
        """
        lines = batch.lines()
        refused: dict[int, Refused | Retry] = {}
        bad_row = _BROKEN_ROW
        for _ in range(_MOST_KINDS):
            problem = await self._search(batch, lines, refused, bad_row, first)
            if problem is not None:
                return problem
            rest = [n for n in range(len(lines)) if n not in refused]
            if not rest:
                return Partial(refused)
            # Another token than the whole batch's, and the same one when the batch comes again.
            digest = hashlib.blake2s(repr(sorted(refused)).encode(), digest_size=8).hexdigest()
            outcome = await self._send_rows(batch, [lines[n] for n in rest], f"but-{digest}")
            if isinstance(outcome, Accepted):
                return Partial(dict(sorted(refused.items())))
            if not isinstance(outcome, _RefusedRow) or not 1 <= outcome.row <= len(rest):
                return outcome
            bad_row = lines[rest[outcome.row - 1]]
        return first

    async def _search(
        self,
        batch: Batch,
        lines: list[bytes],
        refused: dict[int, Refused | Retry],
        bad_row: bytes,
        first: _RefusedRow,
    ) -> Outcome | None:
        """Add the rows that fail as the bad one does to `refused`; returns what prevents that.

        The first request has the bad row alone, so a server that counts in another way is found
        out; then the batch is halved after all.
        """
        outcome = await self._send_rows(batch, [bad_row], "0")
        if not isinstance(outcome, _RefusedRow) or outcome.row != 1:
            return first if isinstance(outcome, Accepted) else outcome
        problems: list[Outcome] = []
        known = _KnownValues()

        async def search(place: int, stop: int) -> None:
            tried = _TRIED_FIRST
            while place < stop and not problems:
                asked: list[int] = []
                while place < stop and len(asked) < tried:
                    if (same := known.refusal_of(lines[place])) is not None:
                        refused[place] = same
                    elif place not in refused:
                        asked.append(place)
                    place += 1
                rows = [*(lines[n] for n in asked), bad_row]
                outcome = await self._send_rows(batch, rows, f"to-{place}")
                if not isinstance(outcome, _RefusedRow) or not 1 <= outcome.row <= len(rows):
                    problems.append(first if isinstance(outcome, Accepted) else outcome)
                elif outcome.row < len(rows):
                    bad = asked[outcome.row - 1]
                    refused[bad] = outcome
                    known.learn(lines[bad], outcome)
                    place = bad + 1
                    tried = max(_FEWEST_TRIED, 4 * outcome.row)
                else:
                    tried *= 4
                tried = min(tried, _MOST_TRIED)

        step = max(_FEWEST_TRIED, -(-len(lines) // _SEARCHES))
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(lines), step):
                group.create_task(search(start, min(start + step, len(lines))))
        return problems[0] if problems else None

    async def _send_rows(self, batch: Batch, rows: list[bytes], name: str) -> Outcome:
        """Insert some of a batch's rows; the token is made of the batch's id and the name."""
        body = b"\n".join(rows) + b"\n"
        part = Batch(
            id=f"{batch.id}-{name}",
            attempt=batch.attempt,
            body=body,
            events=len(rows),
        )
        return await super()._send(part)

    def judge(self, answer: Answer, batch: Batch) -> Outcome:
        """By the code in the answer's text, if it is a known one; else by the status."""
        outcome = classify(answer)
        match = _CODE.search(answer.body)
        if match is None:
            return outcome
        code, kept = int(match[1]), answer.body[:1024]
        reason = f"status {answer.status}, code {code}"
        if code in _OF_A_SETTING:
            for name in _OPTIONAL:
                if name.encode() in answer.body:
                    return _HeldBySetting(reason, answer.status, kept, setting=name)
        if code == _TOO_MANY_PARTS and b"Too many partitions" in answer.body and batch.events > 1:
            # Of one insert: two of half as many rows have fewer each.
            return Refused(reason, answer.status, kept)
        if code not in _OF_LOAD and code != _TOO_MANY_PARTS:
            violated = _VIOLATED.search(answer.body) if code == _VIOLATED_CONSTRAINT else None
            rows = [violated[1]] if violated else _ROW.findall(answer.body)
            if rows and len(answer.body) < self.most_answer_bytes:
                keys = _KEY.findall(answer.body) or [b""]
                key = keys[-1].decode(errors="replace")
                return _RefusedRow(reason, answer.status, kept, row=int(rows[-1]), key=key)
            if code in _OF_ROWS or _SAYS_ROW.search(answer.body):
                return Refused(reason, answer.status, kept)
        if code in _OF_SETTINGS:
            return Held(reason, answer.status, kept)
        if isinstance(outcome, Retry):
            return Retry(reason, outcome.after_s, answer.status, kept)
        if isinstance(outcome, Accepted):  # "HTTP response codes caveats": it began well
            return Retry(reason, 0.0, answer.status, kept)
        return outcome


class _KnownValues:
    """Values that a column cannot take: whoever sends one of them often sends it again."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[str, bytes], Refused] = {}
        self._keys: set[str] = set()

    def learn(self, line: bytes, refusal: _RefusedRow) -> None:
        event = orjson.loads(line)
        if refusal.key in event:
            self._keys.add(refusal.key)
            self._refusals[refusal.key, orjson.dumps(event[refusal.key])] = refusal

    def refusal_of(self, line: bytes) -> Refused | None:
        """The refusal of a row with the same value in the same field."""
        if not self._keys:
            return None
        event = orjson.loads(line)
        for key in self._keys & event.keys():
            if (refusal := self._refusals.get((key, orjson.dumps(event[key])))) is not None:
                return refusal
        return None
