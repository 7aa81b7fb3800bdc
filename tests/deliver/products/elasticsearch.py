"""A test double of Elasticsearch's _bulk API: status 200 with a status for each item."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_destination import FakeResponse, Request

__all__ = ["Elasticsearch"]


class Elasticsearch:
    """An index `events`, whose field `properties.number` is a long.

    Each item has its own status, in the order of the request: 201; 409 if the document exists; 400
    if it does not fit the mapping. `busy` decides by the `_id` whether an item gets status 429.
    `filter_path` is applied.
    """

    def __init__(self, api_key: str = "", user: str = "", max_bytes: int = 100 * 2**20) -> None:
        packed = base64.b64encode(user.encode()).decode()
        self.authorization = f"ApiKey {api_key}" if api_key else f"Basic {packed}" if user else None
        self.max_bytes = max_bytes
        self.documents: dict[str, Any] = {}
        self.busy: Callable[[str], bool] = lambda _: False
        self.is_read_only = False

    def __call__(self, request: Request) -> FakeResponse:
        place = urlsplit(request.path)
        if request.value("Authorization") != self.authorization:
            return FakeResponse(401, body=b'{"error":{"type":"security_exception"},"status":401}')
        if request.value("Content-Type") != "application/x-ndjson":
            return FakeResponse(406, body=b'{"error":"Content-Type header is not supported"}')
        body = request.plain_body
        if len(body) > self.max_bytes:
            return FakeResponse(413, body=b"")
        if request.method != "POST" or not place.path.endswith("/_bulk"):
            return FakeResponse(405, body=b"")
        if not body.endswith(b"\n"):
            return FakeResponse(400, body=b'{"error":{"type":"illegal_argument_exception"}}')
        index = place.path.removesuffix("/_bulk").removeprefix("/")
        lines = [json.loads(line) for line in body.split(b"\n")[:-1]]
        items = [
            {"create": self._create(index, action["create"]["_id"], source)}
            for action, source in zip(lines[::2], lines[1::2], strict=True)
        ]
        response = {
            "took": 3,
            "errors": any("error" in each["create"] for each in items),
            "items": items,
        }
        return FakeResponse(body=json.dumps(self._filter(response, place.query)).encode())

    def _create(self, index: str, document_id: str, source: dict[str, Any]) -> dict[str, Any]:
        item = {"_index": index, "_id": document_id}
        if index != "events":
            return item | self._error(404, "index_not_found_exception", f"no such index [{index}]")
        if self.is_read_only:
            return item | self._error(403, "cluster_block_exception", "index read-only")
        if len(document_id.encode()) > 512:
            return item | self._error(400, "illegal_argument_exception", "id is too long")
        if self.busy(document_id):
            return item | self._error(429, "es_rejected_execution_exception", "queue is full")
        if document_id in self.documents:
            return item | self._error(409, "version_conflict_engine_exception", "already exists")
        if not isinstance(source.get("properties", {}).get("number", 0), int):
            return item | self._error(400, "document_parsing_exception", "failed to parse field")
        self.documents[document_id] = source
        return item | {"_version": 1, "result": "created", "_seq_no": 0, "status": 201}

    @staticmethod
    def _error(status: int, kind: str, reason: str) -> dict[str, Any]:
        return {"status": status, "error": {"type": kind, "reason": reason, "shard": "0"}}

    @staticmethod
    def _filter(response: dict[str, Any], query: str) -> dict[str, Any]:
        """Return the parts of a response that match `filter_path`; `*` matches one name."""
        paths = parse_qs(query).get("filter_path", [""])[0].split(",")
        return _only(response, [path.split(".") for path in paths])


def _only(value: Any, paths: list[list[str]]) -> Any:
    if [] in paths:
        return value
    if isinstance(value, list):
        return [_only(each, paths) for each in value]
    if not isinstance(value, dict):
        return None
    kept = {}
    for name, below in value.items():
        rest = [path[1:] for path in paths if path[0] in (name, "*")]
        if rest and (part := _only(below, rest)) is not None:
            kept[name] = part
    return kept
