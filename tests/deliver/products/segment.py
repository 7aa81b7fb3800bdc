"""Test doubles of Segment's and RudderStack's batch APIs, from their documentation."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.fake_destination import FakeResponse, Request

__all__ = ["BatchApi"]


class BatchApi:
    """`POST /v1/batch` of Segment ("HTTP API Source") or RudderStack ("HTTP API", "Batch").

    Responds 400 if a batch or an event is too large or not JSON, and accepts none of it.
    RudderStack responds 401 to a wrong write key. Segment responds 200 to everything else, and
    drops events without an id and those with a repeated messageId. RudderStack's gateway removes
    invisible characters from ids, responds 400 if nothing is left, and assigns a batch to the job
    run that its first event names (getJobDataFromRequest).
    """

    def __init__(
        self, write_key: str = "wk_1", max_bytes: int = 500_000, is_rudderstack: bool = False
    ) -> None:
        self.write_key = write_key
        self.max_bytes = max_bytes
        self.most_event_bytes = 32_768
        self.is_rudderstack = is_rudderstack
        self.events: dict[str, Any] = {}
        self.job_runs: list[str] = []

    def __call__(self, request: Request) -> FakeResponse:
        if request.path != "/v1/batch":
            return FakeResponse(404, body=b"404 page not found\n")
        if request.method != "POST" or request.value("Content-Type") != "application/json":
            return FakeResponse(400, body=b'{"message":"wrong method or content type"}')
        packed = base64.b64encode(f"{self.write_key}:".encode()).decode()
        is_known = request.value("Authorization") == f"Basic {packed}"
        if self.is_rudderstack and not is_known:
            return FakeResponse(401, body=b'{"msg":"Failed to read writeKey from header"}')
        body = request.plain_body
        if len(body) > self.max_bytes:
            return FakeResponse(400, body=b'{"success":false,"message":"exceeds maximum size"}')
        try:
            events = json.loads(body)["batch"]
        except (ValueError, LookupError):
            return FakeResponse(400, body=b'{"success":false,"message":"malformed JSON"}')
        sizes = [len(json.dumps(each, separators=(",", ":"))) for each in events]
        if max(sizes) > self.most_event_bytes:
            return FakeResponse(400, body=b'{"success":false,"message":"an event exceeds 32 KB"}')
        if self.is_rudderstack:
            if not all(_visible(x.get("userId")) or _visible(x.get("anonymousId")) for x in events):
                return FakeResponse(400, body=b"request neither has anonymousId nor userId\n")
            run = events[0].get("context", {}).get("sources", {}).get("job_run_id", "")
            self.job_runs += [run] * len(events)
        if is_known:
            for each in events:
                if each.get("userId") or each.get("anonymousId"):
                    self.events.setdefault(each["messageId"], each)
        return FakeResponse(body=b"OK" if self.is_rudderstack else b'{"success":true}')


def _visible(identity: str | None) -> str:
    """Return an id without invisible characters, as rudder-go-kit's sanitize.Unicode does."""
    invisible = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\ufeff\uffa0"
    kept = [each for each in identity or "" if each not in invisible]
    return "".join(each for each in kept if each == " " or each.isprintable()).strip()
