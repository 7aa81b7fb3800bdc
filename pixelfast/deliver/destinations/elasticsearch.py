"""An index of Elasticsearch or OpenSearch, which accepts or rejects each event separately."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace

from pixelfast.config import ElasticsearchDestination
from pixelfast.deliver.batches import Batch
from pixelfast.deliver.bodies.bulk_items import scan_errors
from pixelfast.deliver.bodies.documents import repair
from pixelfast.deliver.bodies.plain_event import MAX_ID_BYTES, plain_message_id
from pixelfast.deliver.excerpts import Excerpts
from pixelfast.deliver.http.responses import KEPT_BYTES, Response, classify
from pixelfast.deliver.http.sender import HttpSender, basic, shared_options
from pixelfast.deliver.outcomes import (
    Accepted,
    FailureGroup,
    Failures,
    Held,
    Outcome,
    Partial,
    Rejected,
    Retry,
)
from pixelfast.deliver.retry import parse_retry_after

__all__ = ["ElasticsearchSender"]

# The wanted fields of a response. Without a filter, a response to 1,000 events has 200 KB.
_WANTED = ",".join(
    (
        "error",
        "errors",
        "items.*.status",
        "items.*.error.type",
        "items.*.error.reason",
        "items.*.error.caused_by.type",
        "items.*.error.caused_by.reason",
        "items.*.error.caused_by.caused_by.type",
        "items.*.error.caused_by.caused_by.reason",
    )
)
_MAX_ITEM_BYTES = 1024  # read per item; reasons may quote values of any length
_MAX_REASON_BYTES = 280  # a reason and two causes fit into 1 KiB
_MAX_CAUSES = 2
_QUOTES_REQUEST = b"at [Source: "
_TIMESTAMP = b"@timestamp"
_ESCAPE = b"\\u"  # could hide a secret from masking
_EXISTS = 409
_UNAVAILABLE = 503  # a cluster without a master sends it with cluster_block_exception

# Errors of the index or the cluster, whatever their status.
_OF_SETTINGS = frozenset(
    {
        "cluster_block_exception",  # read-only, 403; disk above the flood stage, 429
        "index_closed_exception",
        "index_create_block_exception",
        "index_not_found_exception",
        "invalid_alias_name_exception",
        "invalid_index_name_exception",
        "routing_missing_exception",  # the mapping requires a routing
        "security_exception",
        "validation_exception",  # no more shards for a new index
    }
)
# Errors of settings whose type also occurs for bad documents. Reasons quote documents, so only the
# beginning of a reason is compared.
_REASONS_OF_SETTINGS = (
    "no write index is defined for alias [",
    "Alias [",  # has more than one index
    "pipeline with id [",  # does not exist
    "Rejecting mapping update to [",  # an index of another mapping type
)
_BEGINNINGS = tuple(reason.encode() for reason in _REASONS_OF_SETTINGS)
_NO_TIMESTAMP = (
    "data stream timestamp field [@timestamp] is missing",
    "documents must contain a single-valued timestamp field '@timestamp'",  # OpenSearch
)


class _Item(msgspec.Struct, gc=False):
    status: int
    error: msgspec.Raw = msgspec.Raw(b"{}")


class _Action(msgspec.Struct, gc=False):
    create: _Item


class _BulkResponse(msgspec.Struct):
    """The parsed part of a response, without an object for each field of each error."""

    errors: bool
    items: list[_Action] = []


class _Head(msgspec.Struct):
    """The fields of an error that decide its meaning."""

    type: object = None
    reason: object = None


# Not a response of _bulk, not UTF-8, or too deeply nested.
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
_RESPONSE = msgspec.json.Decoder(_BulkResponse)
_HEAD = msgspec.json.Decoder(_Head)

# As returned by the scan of a response: the status, the type, whether the reason is one of
# `_REASONS_OF_SETTINGS`, the indexes of the items and their errors.
ErrorGroup = tuple[int, bytes, bool, list[int], Excerpts]
ItemError = tuple[int, int, bytes]  # the index of an item, its status and its error


class ElasticsearchSender(HttpSender):
    """Send POST {url}/{index}/_bulk with `create` and the messageId as `_id`.

    Source: Elasticsearch's documentation, "Bulk index or delete documents": the response is 200
    with a status for each item, in their order. A 409 says that the document exists, so a repeated
    event is not stored twice. An `_id` has at most 512 bytes; a longer messageId is replaced by its
    SHA-256.
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
        self.max_response_bytes += settings.max_events * _MAX_ITEM_BYTES

    def body_of(self, batch: Batch) -> bytes:
        parts: list[bytes] = []
        for index, line in enumerate(batch.lines()):
            message_id = plain_message_id(line)
            if message_id is None:
                event = orjson.loads(line)
                message_id = orjson.dumps(_document_id(event) or batch.event_ids()[index])
                document = repair(event)
                line = line if document is None else orjson.dumps(document)
            parts.append(b'{"create":{"_id":%b}}\n%b\n' % (message_id, line))
        return b"".join(parts)

    def judge(self, response: Response, batch: Batch) -> Outcome:
        if 200 <= response.status < 300:
            return self._judge_items(response, batch)
        outcome = _judge_error(response.status, _error_of(response.body), response.body)
        if isinstance(outcome, Retry):
            after_s = parse_retry_after(response.retry_after)
            return replace(outcome, after_s=after_s)
        return outcome

    def _judge_items(self, response: Response, batch: Batch) -> Outcome:
        body = response.body
        if _is_utf8(body):
            found = scan_errors(body, batch.events, _BEGINNINGS, KEPT_BYTES)
            if found is not None:
                return _judge_found(*found, batch)
        try:
            parsed = _RESPONSE.decode(body)
            if not parsed.errors:
                return Accepted()
            if len(parsed.items) == batch.events:
                items = [
                    (index, each.create.status, bytes(each.create.error))
                    for index, each in enumerate(parsed.items)
                    if each.create.status >= 300
                ]
                return _judge_each(items, batch)
        except _UNREADABLE:
            pass
        return self._judge_unreadable(response, batch)

    def _judge_unreadable(self, response: Response, batch: Batch) -> Outcome:
        """Retry the batch: stored events then get status 409, so they are not stored twice.

        Reasons that quote long values can make a response longer than the part that is read. Half a
        batch gets half the response, so the batch is divided then.
        """
        is_cut = len(response.body) >= self.max_response_bytes
        if is_cut and batch.events > 1 and response.body.startswith(b'{"errors":true,"items":['):
            return Rejected("the response is too long", response.status)
        return Retry(
            "the response is not a _bulk response", 0.0, response.status, _beginning(response.body)
        )


def _document_id(event: dict[str, Any]) -> str:
    message_id = event.get("messageId")
    if not isinstance(message_id, str):
        return ""
    encoded = message_id.encode()
    return message_id if len(encoded) <= MAX_ID_BYTES else hashlib.sha256(encoded).hexdigest()


def _is_utf8(body: bytes) -> bool:
    try:
        return body.isascii() or bool(body.decode())
    except UnicodeDecodeError:
        return False


def _judge_found(groups: list[ErrorGroup], others: list[ItemError], batch: Batch) -> Outcome:
    """Judge groups of errors with the same meaning, and all others one by one."""
    failed: list[FailureGroup] = []
    held: Held | None = None
    held_at = batch.events  # the first item with an error of settings
    for status, kind, has_beginning, places, errors in groups:
        if status < 300 or status == _EXISTS:
            continue
        name = kind.decode()
        meaning = _meaning(status, name, has_beginning or name in _OF_SETTINGS)
        if isinstance(meaning, Held) and places[0] < held_at:
            held, held_at = replace(meaning, response=errors[0]), places[0]
        elif isinstance(meaning, Rejected | Retry):
            failed.append(FailureGroup(meaning, places, errors))
    rest = _judge_each([each for each in others if each[0] < held_at], batch)
    if isinstance(rest, Held):
        return rest
    if held is not None:
        return held
    if isinstance(rest, Partial):
        failed += rest.failed.groups
    return Partial(Failures(failed)) if failed else Accepted()


def _judge_each(items: list[ItemError], batch: Batch) -> Accepted | Held | Partial:
    """Judge the errors of items one by one."""
    failed: dict[int, Rejected | Retry] = {}
    lines: list[bytes] = []
    for index, status, error in items:
        if status < 300 or status == _EXISTS:
            continue
        outcome = _judge_item(status, error)
        if isinstance(outcome, Held):
            return outcome
        if isinstance(outcome, Rejected) and _lacks_timestamp(error):
            lines = lines or batch.lines()
            # If the event has the field, its value is to blame.
            if b'"@timestamp"' not in lines[index]:
                return Held(outcome.reason, status, outcome.response)
        if isinstance(outcome, Rejected | Retry):
            failed[index] = outcome
    return Partial.of(failed) if failed else Accepted()


def _judge_item(status: int, error: bytes) -> Accepted | Retry | Rejected | Held:
    """Return the outcome of an item's error, as `_judge_error` does.

    Most errors are kept unchanged.
    """
    try:
        head = _HEAD.decode(error)
    except msgspec.DecodeError:
        return _judge_error(status, {}, b"")
    is_plain = _QUOTES_REQUEST not in error and _ESCAPE not in error
    if not is_plain or not isinstance(head.type, str) or len(error) > KEPT_BYTES:
        return _judge_error(status, orjson.loads(error), b"")
    return _outcome_of(status, head.type, head.reason, error)


def _judge_error(
    status: int, error: dict[str, Any], body: bytes
) -> Accepted | Retry | Rejected | Held:
    """Return the outcome of an error, either of an item or of the whole request."""
    kept = _kept(error) if error else _beginning(body)
    kind, reason = error.get("type"), error.get("reason")
    if not isinstance(kind, str) or 200 <= status < 300:
        return classify(Response(status, None, kept))
    return _outcome_of(status, kind, reason, kept[:KEPT_BYTES])


def _outcome_of(
    status: int, kind: str, reason: object, kept: bytes
) -> Accepted | Retry | Rejected | Held:
    is_of_settings = kind in _OF_SETTINGS or (
        isinstance(reason, str) and reason.startswith(_REASONS_OF_SETTINGS)
    )
    meaning = _meaning(status, kind[:100], is_of_settings)
    return meaning if isinstance(meaning, Accepted) else replace(meaning, response=kept)


@lru_cache(256)
def _meaning(status: int, kind: str, is_of_settings: bool) -> Accepted | Retry | Rejected | Held:
    """Return the outcome of a type of error; cached, because many items fail in the same way."""
    says = f"status {status}, {kind}"
    if is_of_settings and status != _UNAVAILABLE:
        return Held(says, status)
    return classify(Response(status), says)


def _lacks_timestamp(error: bytes) -> bool:
    """Whether an error says that a data stream requires the field `@timestamp`."""
    if _TIMESTAMP not in error:
        return False
    told = orjson.loads(error)
    cause = told.get("caused_by", told) if isinstance(told, dict) else None
    reason = cause.get("reason") if isinstance(cause, dict) else None
    return isinstance(reason, str) and reason.startswith(_NO_TIMESTAMP)


def _error_of(body: bytes) -> dict[str, Any]:
    """Return the error of the whole request from its response, or {}."""
    try:
        error = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _kept(error: dict[str, Any]) -> bytes:
    """Return the whole error if it is short, otherwise its beginning without the request."""
    whole = orjson.dumps(error)
    if len(whole) <= KEPT_BYTES and _QUOTES_REQUEST not in whole:
        return whole
    return orjson.dumps(_told(error, _MAX_CAUSES))


def _told(error: dict[str, Any], causes: int) -> dict[str, Any]:
    """Return an error's beginning; the cause first, because the reason often quotes a value."""
    told: dict[str, Any] = {}
    if isinstance(kind := error.get("type"), str):
        told["type"] = kind[:100]
    if causes and isinstance(cause := error.get("caused_by"), dict):
        told["caused_by"] = _told(cause, causes - 1)
    if isinstance(reason := error.get("reason"), str):
        short = _without_request(reason).encode(errors="replace")[:_MAX_REASON_BYTES]
        told["reason"] = short.decode(errors="ignore")
    return told


def _beginning(body: bytes) -> bytes:
    return _without_request(body[:KEPT_BYTES].decode(errors="replace")).encode()


def _without_request(reason: str) -> str:
    """Remove the request that version 7 quotes, because its headers contain credentials."""
    return reason.partition(_QUOTES_REQUEST.decode())[0].rstrip()
