"""A ClickHouse table: a batch is one INSERT, and one that comes again is dropped there."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from yarl import URL

from pixelfast.config import ClickhouseDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.answers import Answer, classify
from pixelfast.deliver.destinations.http import HttpSender, shared_options
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Refused, Retry

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
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        407,  # DECIMAL_OVERFLOW
        441,  # CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
    }
)
_OF_SETTINGS = frozenset(
    {
        16,  # NO_SUCH_COLUMN_IN_TABLE
        36,  # BAD_ARGUMENTS
        48,  # NOT_IMPLEMENTED
        60,  # UNKNOWN_TABLE
        62,  # SYNTAX_ERROR
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
_CODE = re.compile(rb"Code: (\d{1,5})[.,] .*DB::Exception")


class ClickhouseSender(HttpSender):
    """POST {url}/?query=INSERT INTO `database`.`table` FORMAT JSONEachRow, a row an event.

    Source: ClickHouse's documentation, "HTTP Interface" and "Deduplicating Inserts on Retries":
    an insert whose insert_deduplication_token the table has seen is dropped and answered with 200.
    Tables of the ReplicatedMergeTree family remember tokens by themselves, others once they have
    `non_replicated_deduplication_window`. The answer comes when the rows are written (no
    async_insert).
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
        }
        headers = {"X-ClickHouse-User": settings.username}
        if settings.password:
            headers["X-ClickHouse-Key"] = settings.password
        super().__init__(self._base, "ndjson", headers=headers, **shared_options(settings))

    def url_of(self, batch: Batch) -> URL:
        query = self._query | {"insert_deduplication_token": batch.id}
        return URL(f"{self._base}/?{urlencode(query, quote_via=quote)}", encoded=True)

    def judge(self, answer: Answer, batch: Batch) -> Outcome:  # noqa: ARG002 - of all or none
        """By the code in the answer's text, if it is a known one; else by the status."""
        outcome = classify(answer)
        match = _CODE.search(answer.body)
        if match is None:
            return outcome
        code, kept = int(match[1]), answer.body[:1024]
        reason = f"status {answer.status}, code {code}"
        if code in _OF_ROWS:
            return Refused(reason, answer.status, kept)
        if code in _OF_SETTINGS:
            return Held(reason, answer.status, kept)
        if isinstance(outcome, Retry):
            return Retry(reason, outcome.after_s, answer.status, kept)
        if isinstance(outcome, Accepted):  # "HTTP response codes caveats": it began well
            return Retry(reason, 0.0, answer.status, kept)
        return outcome
