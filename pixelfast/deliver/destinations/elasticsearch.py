"""An index of Elasticsearch or OpenSearch: each event is taken or refused for itself."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.destinations.answers import Answer, classify
from pixelfast.deliver.destinations.http import HttpSender, basic, shared_options
from pixelfast.deliver.outcomes import Accepted, Held, Outcome, Partial, Refused, Retry

__all__ = ["ElasticsearchSender"]

_MOST_ID_BYTES = 512
# Without this an answer to 1,000 events has 200 KB.
_WANTED = "errors,items.*.status,items.*.error.type,items.*.error.reason"
_MOST_ITEM_BYTES = 2048  # an error's reason quotes the value that did not fit
_EXISTS = 409


class ElasticsearchSender(HttpSender):
    """POST {url}/{index}/_bulk with `create` and the messageId as `_id`.

    Source: Elasticsearch's documentation, "Bulk index or delete documents": the answer is 200 with
    a status for each item, in their order. A 409 says that the document exists, so what comes again
    is not stored twice. An `_id` may have 512 bytes; a longer messageId is replaced by its SHA-256.
    """

    is_body_costly = True

    def __init__(self, settings: ElasticsearchDestination) -> None:
        headers = {}
        if settings.api_key:
            headers["Authorization"] = f"ApiKey {settings.api_key}"
        elif settings.username:
            headers["Authorization"] = basic(settings.username, settings.password or "")
        super().__init__(
            f"{settings.url.rstrip('/')}/{settings.index}/_bulk?filter_path={_WANTED}",
            "ndjson",
            headers=headers,
            **shared_options(settings),
        )
        self.most_answer_bytes += settings.max_events * _MOST_ITEM_BYTES

    def body_of(self, batch: Batch) -> bytes:
        parts: list[bytes] = []
        for line, event_id in zip(batch.lines(), batch.event_ids(), strict=True):
            action = {"create": {"_id": _document_id(line, event_id)}}
            parts += (orjson.dumps(action), line)
        return b"\n".join(parts) + b"\n"

    def judge(self, answer: Answer, batch: Batch) -> Outcome:
        outcome = classify(answer)
        return _judge_items(answer, batch) if isinstance(outcome, Accepted) else outcome


def _document_id(line: bytes, event_id: str) -> str:
    message_id = orjson.loads(line).get("messageId")
    if not isinstance(message_id, str) or not message_id:
        return event_id
    encoded = message_id.encode()
    return message_id if len(encoded) <= _MOST_ID_BYTES else hashlib.sha256(encoded).hexdigest()


def _judge_items(answer: Answer, batch: Batch) -> Outcome:
    kept = answer.body[:1024]
    try:
        parsed = orjson.loads(answer.body)
        if parsed["errors"] is False:
            return Accepted()
        items = [item["create"] for item in parsed["items"]]
        statuses = [int(item["status"]) for item in items]
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
        statuses = items = []
    if len(statuses) != batch.events:
        # What was taken answers 409 the next time: nothing is stored twice.
        return Retry("the answer is none of _bulk", 0.0, answer.status, kept)
    failed: dict[int, Refused | Retry] = {}
    for index, (status, item) in enumerate(zip(statuses, items, strict=True)):
        outcome = classify(Answer(status, None, _error(item)))
        if isinstance(outcome, Held) and status != _EXISTS:
            return Held(f"item: {outcome.reason}", status, outcome.answer)
        if isinstance(outcome, Refused | Retry):
            failed[index] = outcome
    return Partial(failed) if failed else Accepted()


def _error(item: dict[str, Any]) -> bytes:
    error = item.get("error")
    return orjson.dumps(error) if error else b""
