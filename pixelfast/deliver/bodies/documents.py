"""Events as documents that Elasticsearch and OpenSearch can store."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["repair"]

_MAX_DEPTH = 20  # default of index.mapping.depth.limit: names on a path, and nested arrays
_PREFIX = "field_"
# Metadata fields of all versions since 7, and of the plugins of Elastic.
_RESERVED = frozenset(
    {
        "_data_stream_timestamp",
        "_doc_count",  # is accepted as a number, and multiplies what aggregations count
        "_feature",
        "_field_names",
        "_id",
        "_ignored",
        "_ignored_source",
        "_index",
        "_index_mode",
        "_inference_fields",
        "_nested_path",
        "_primary_term",
        "_recovery_source",
        "_routing",
        "_seq_no",
        "_size",
        "_source",
        "_tier",
        "_ts_routing_hash",
        "_tsid",
        "_type",
        "_version",
    }
)


def repair(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the document for an event, or None if the event needs no change.

    Under any mapping, a document is rejected for a reserved name at its root, for a name with a
    blank part between dots, and for a path of more than 20 names. Write keys are public, so any
    client can send such an event. Such fields are renamed, and objects and arrays that are too deep
    become strings. The same event always results in the same document.

    >>> repair({"_id": "7", "properties": {"": 1, "a..b": 2}})
    {'field__id': '7', 'properties': {'field_': 1, 'field_a__b': 2}}
    >>> repair({"event": "Order Placed"}) is None
    True
    """
    document = _repair_object(event, 0)
    return None if document == event else document


def _repair_object(fields: dict[str, Any], depth: int) -> dict[str, Any]:
    """Repair an object whose path has `depth` names."""
    kept = {name for name in fields if _is_accepted(name, depth)}
    document: dict[str, Any] = {}
    for name, value in fields.items():
        new = name
        if name not in kept:
            new = _PREFIX + name.replace(".", "_")
            while new in kept or new in document:
                new += "_"
        document[new] = _repair_value(value, depth + new.count(".") + 1, 0)
    return document


def _is_accepted(name: str, depth: int) -> bool:
    parts = name.split(".")  # dots separate the names of nested objects
    return (
        all(part.strip() for part in parts)
        and depth + len(parts) <= _MAX_DEPTH
        and not (depth == 0 and parts[0] in _RESERVED)
    )


def _repair_value(value: Any, depth: int, arrays: int) -> Any:
    if isinstance(value, dict):
        return _repair_object(value, depth) if depth < _MAX_DEPTH else orjson.dumps(value).decode()
    if isinstance(value, list):
        if arrays == _MAX_DEPTH:
            return orjson.dumps(value).decode()
        return [_repair_value(each, depth, arrays + 1) for each in value]
    return value
