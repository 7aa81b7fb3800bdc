"""A test double of ClickHouse's HTTP interface for inserts of JSONEachRow."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fake_destination import FakeResponse, Request

__all__ = ["Clickhouse"]

_INSERT = re.compile(r"INSERT INTO `(\w+)`\.`(\w+)` FORMAT JSONEachRow")


def failure(status: int, code: int, text: str) -> FakeResponse:
    if re.search(r"\(at row \d+\)$", text):
        text += "\n: While executing ParallelParsingBlockInputFormat."
    body = f"Code: {code}. DB::Exception: {text} (version 24.8.1.1 (official build))\n"
    return FakeResponse(status, (("X-ClickHouse-Exception-Code", str(code)),), body.encode())


class Clickhouse:
    """A table `default.events (messageId String, timestamp DateTime64(3), number UInt8)`.

    An insert succeeds or fails as a whole. An insert with a known insert_deduplication_token is
    dropped with status 200 ("Deduplicating Inserts on Retries"), so a token must never be used for
    other rows. Missing columns get their defaults. Unknown fields and dates with T and Z are errors
    unless the settings of the query allow them.
    """

    def __init__(self, user: str = "default", password: str = "") -> None:
        self.credentials = (user, password)
        self.rows: list[dict[str, Any]] = []
        self.tokens: dict[str, bytes] = {}
        self.is_over_parts = False
        self.unknown_settings: set[str] = set()
        self.requests = 0

    def __call__(self, request: Request) -> FakeResponse:
        self.requests += 1
        query = dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))
        user, password = request.value("X-ClickHouse-User"), request.value("X-ClickHouse-Key")
        if (user or "default", password or "") != self.credentials:
            return failure(403, 516, f"{user}: Authentication failed")
        match = _INSERT.fullmatch(query.get("query", ""))
        if request.method != "POST" or match is None:
            return failure(400, 62, "Syntax error")
        if match[1] != "default":
            return failure(404, 81, f"Database {match[1]} does not exist")
        if match[2] != "events":
            return failure(404, 60, f"Table default.{match[2]} does not exist")
        if self.is_over_parts:
            return failure(500, 252, "Too many parts (300)")
        for name in sorted(self.unknown_settings & query.keys()):
            return failure(404, 115, f"Unknown setting '{name}'")
        if "async_insert" not in self.unknown_settings:
            assert query.get("async_insert") == "0", "the response would come before the rows"
        body = request.plain_body
        rows: list[Any] = []
        for number, line in enumerate(body.split(b"\n")[:-1], 1):
            problem = self._read(line, query, rows)
            if problem is not None:
                status, code, text = problem
                return failure(status, code, f"{text}: (at row {number})")
        token = query.get("insert_deduplication_token", f"none-{self.requests}")
        if token in self.tokens:
            assert body == self.tokens[token], "other rows under a token that was used: lost"
            return FakeResponse(body=b"")
        self.tokens[token] = body
        self.rows += rows
        return FakeResponse(body=b"")

    def _read(
        self, line: bytes, query: dict[str, str], rows: list[dict[str, Any]]
    ) -> tuple[int, int, str] | None:
        try:
            event = json.loads(line)
        except ValueError:
            return 400, 27, f"Cannot parse input: expected '{{' before: {line.decode()!r}"
        unknown = event.keys() - {"messageId", "timestamp", "number"}
        if unknown and query.get("input_format_skip_unknown_fields") != "1":
            return 400, 117, f"Unknown field found while parsing JSONEachRow: {min(unknown)}"
        try:
            if query.get("date_time_input_format") != "best_effort":
                raise ValueError
            stamp = datetime.fromisoformat(event.get("timestamp", "1970-01-01"))
        except ValueError:
            return 400, 41, "Cannot parse DateTime"
        number = event.get("number", 0)
        if not isinstance(number, int):
            return 400, 27, "Cannot parse input: (while reading the value of key number)"
        if isinstance(number, bool):
            return 500, 467, "Cannot parse boolean value here"
        rows.append({"messageId": event.get("messageId", ""), "timestamp": stamp, "number": number})
        return None
