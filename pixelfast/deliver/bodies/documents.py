"""Events as documents that Elasticsearch and OpenSearch can store."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["mend"]

_MAX_DEPTH = 20  # default of index.mapping.depth.limit: names on a path, arrays in each other
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


def mend(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the document for an event, or None if it is the event as it is.

    Whatever the mapping, a document is rejected for a reserved name at its root, for a name with a
    blank part between its dots, and for a path of more than 20 names. Write keys are public, so
    anybody can send such an event. Fields get another name, objects and arrays that are too deep
    become strings. The same event always gives the same document.

    >>> mend({"_id": "7", "properties": {"": 1, "a..b": 2}})
    {'field__id': '7', 'properties': {'field_': 1, 'field_a__b': 2}}
    >>> mend({"event": "Order Placed"}) is None
    True
    """
    document = _mend_object(event, 0)
    return None if document == event else document


def _mend_object(fields: dict[str, Any], depth: int) -> dict[str, Any]:
    """`depth`: how many names lead to it."""
    kept = {name for name in fields if _is_accepted(name, depth)}
    document: dict[str, Any] = {}
    for name, value in fields.items():
        new = name
        if name not in kept:
            new = _PREFIX + name.replace(".", "_")
            while new in kept or new in document:
                new += "_"
        document[new] = _mend_value(value, depth + new.count(".") + 1, 0)
    return document


def _is_accepted(name: str, depth: int) -> bool:
    parts = name.split(".")  # dots stand for objects within each other
    return (
        all(part.strip() for part in parts)
        and depth + len(parts) <= _MAX_DEPTH
        and not (depth == 0 and parts[0] in _RESERVED)
    )


def _mend_value(value: Any, depth: int, arrays: int) -> Any:
    if isinstance(value, dict):
        return _mend_object(value, depth) if depth < _MAX_DEPTH else orjson.dumps(value).decode()
    if isinstance(value, list):
        if arrays == _MAX_DEPTH:
            return orjson.dumps(value).decode()
        return [_mend_value(each, depth, arrays + 1) for each in value]
    return value
