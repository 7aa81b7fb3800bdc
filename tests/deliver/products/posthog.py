"""A test double of PostHog's capture service, from its documentation and its responses."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

from tests.fake_destination import FakeResponse, Request

__all__ = ["Posthog"]


class Posthog:
    """`POST /batch/` ("Capture and batch API endpoints").

    Accepts or rejects whole batches: 400 for an invalid body or an event without name or
    distinct_id, 401 without a key, 403 for an unknown key, 413 above 20 MB. Above its quota it
    responds 200 and drops the events. Events with an invalid or repeated uuid are dropped. A
    `$cookieless_mode` that is not a boolean rejects the batch (capture's analytics.rs). Ids are
    truncated to 200 characters.

    Attributes:
        merged: persons that were merged.
        persons: properties that were set of persons.
    """

    def __init__(self, api_key: str = "phc_1", max_bytes: int = 20_000_000) -> None:
        self.api_key = api_key
        self.max_bytes = max_bytes
        self.is_over_quota = False
        self.events: dict[str, Any] = {}
        self.merged: list[tuple[str, str]] = []
        self.persons: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Request) -> FakeResponse:
        if (request.method, request.path) != ("POST", "/batch/"):
            return FakeResponse(404, body=b"")
        if len(request.plain_body) > self.max_bytes:
            return FakeResponse(413, body=b'{"status":413,"code":"payload_too_large"}')
        try:
            body = json.loads(request.plain_body)
            key, batch = body.get("api_key"), body["batch"]
        except (ValueError, LookupError, AttributeError):
            return FakeResponse(400, body=b'{"status":400,"code":"request_parsing_error"}')
        if not key:
            return FakeResponse(401, body=b'{"status":401,"code":"ingest_key_required"}')
        if key != self.api_key:
            return FakeResponse(403, body=b'{"status":403,"code":"ingest_key_unknown"}')
        for each in batch:
            if not isinstance(each.get("event"), str) or not each["event"]:
                return FakeResponse(400, body=b'{"status":400,"code":"missing_event_name"}')
            if not each.get("distinct_id"):
                return FakeResponse(400, body=b'{"status":400,"code":"missing_distinct_id"}')
            assert isinstance(each["properties"], dict)
            if not isinstance(each["properties"].get("$cookieless_mode", False), bool):
                return FakeResponse(400, body=b'{"status":400,"code":"invalid_cookieless_mode"}')
            datetime.fromisoformat(each["timestamp"])
        if self.is_over_quota:
            return FakeResponse(body=b'{"status":1,"quota_limited":["events"]}')
        for each in batch:
            uuid.UUID(each["uuid"])
            self.events.setdefault(each["uuid"], each)
            self._change_persons(each["event"], each["distinct_id"][:200], each["properties"])
        return FakeResponse(body=b'{"status":1}')

    def _change_persons(self, name: str, person: str, properties: dict[str, Any]) -> None:
        if name in {"$create_alias", "$merge_dangerously"}:
            self.merged.append((person, properties["alias"]))
        if name == "$identify" and "$anon_distinct_id" in properties:
            self.merged.append((person, properties["$anon_distinct_id"]))
        found = self.persons.setdefault(person, {})
        found.update(properties.get("$set") or {})
        for each in properties.get("$unset") or []:
            found.pop(each, None)
