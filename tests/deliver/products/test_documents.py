"""Events that Elasticsearch can never store become documents that it can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelfast.deliver.bodies.documents import repair
from pixelfast.deliver.bodies.plain_event import plain_message_id
from tests.deliver.products.events import message_id, tracked

MAX_DEPTH = 20


def repaired(event: dict[str, Any]) -> dict[str, Any]:
    document = repair(event)
    assert document is not None
    return document


def nested(depth: int, value: object) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def in_arrays(depth: int, value: object) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "event",
    [
        json.loads(tracked(1)),
        {"_ga": "GA1.2", "_": 1, "__typename": "x"},
        {"properties": {"_id": 1, "_source": {"_type": "x"}}},
        {"properties": {"a.b": 1, "a.c": 2}, "a.b.c": 3},
        {"properties": {"\u200b": 1, "a b": 2, "*": 3, "-": 4}},
        {"properties": {"list": [{"a": 1}, {"a": [{"b": 2}]}, [], {}]}},
        nested(20, "x"),
        {"a": {".".join("b" * 19): 1}},
        {"a": in_arrays(20, 1)},
        {"a": [{"b": in_arrays(20, 1)}]},
        {"a": " ", "b": "_id", "c": "a..b", "d": '"":'},
    ],
)
def test_an_event_that_can_be_stored_is_not_changed(event: dict[str, Any]) -> None:
    assert repair(event) is None


@pytest.mark.parametrize(
    ("event", "document"),
    [
        ({"_id": 1}, {"field__id": 1}),
        ({"_source": {"a": 1}, "x": 2}, {"field__source": {"a": 1}, "x": 2}),
        ({"_routing.a": 1}, {"field__routing_a": 1}),
        ({"": 1}, {"field_": 1}),
        ({"p": {" ": 1, "\t": 2}}, {"p": {"field_ ": 1, "field_\t": 2}}),
        ({"p": {".": 1, "..": 2}}, {"p": {"field__": 1, "field___": 2}}),
        ({"p": {".a": 1, "a.": 2}}, {"p": {"field__a": 1, "field_a_": 2}}),
        ({"p": {"a. .b": 3}}, {"p": {"field_a_ _b": 3}}),
        ({"p": [[{"": [1]}]]}, {"p": [[{"field_": [1]}]]}),
        ({"": 1, "field_": 2}, {"field__": 1, "field_": 2}),
        ({"a..b": 1, "a._b": 2, "a.._": 3}, {"field_a__b": 1, "a._b": 2, "field_a___": 3}),
        ({"_id": 1, "field__id": {"": 2}}, {"field__id_": 1, "field__id": {"field_": 2}}),
        (nested(21, "x"), nested(20, '{"a":"x"}')),
        ({"a": {"b" + ".b" * 19: 1}}, {"a": {"field_b" + "_b" * 19: 1}}),
        ({"a": in_arrays(21, 1)}, {"a": in_arrays(20, "[1]")}),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_stored_are_renamed_or_made_strings(
    event: dict[str, Any], document: dict[str, Any]
) -> None:
    assert document == repaired(event)
    assert list(document) == list(repaired(event))


NAMES = st.text(st.sampled_from(". _ai\u3000"), max_size=6) | st.sampled_from(
    ["_id", "_source", "_source.a", "field_", "field__id", ".".join("a" * 25)]
)
VALUES = st.recursive(
    st.integers(0, 9) | st.just("x"),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=4),
    max_leaves=12,
)


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) else 1


def check(value: Any, depth: int = 0, arrays: int = 0) -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            parts = name.split(".")
            assert all(part.strip() for part in parts)
            assert depth or parts[0] not in {"_id", "_source"}
            assert depth + len(parts) <= MAX_DEPTH
            check(below, depth + len(parts))
    elif isinstance(value, list):
        assert arrays < MAX_DEPTH
        for each in value:
            check(each, depth, arrays + 1)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_every_document_can_be_stored_and_has_all_values(event: dict[str, Any]) -> None:
    document = repair(event)
    check(event if document is None else document)
    if document is not None:
        assert leaves(event) == leaves(document)
        assert document == repair(event)
        assert repair(document) is None


def packed(event: object) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.text(max_size=5) | st.integers())
@example({"a": nested(18, "x")}, "m")
@example({"a": nested(19, "x")}, "m")
@example({"a": '"_id":', "b": '\\"', "c": "\\", "d": '\\\\"_id":'}, "m")
@example({"properties": {"messageId": "other"}}, 5)
@example({"a": "messageId", "b": ["messageId", "x"]}, 5)
def test_an_event_that_is_regarded_as_plain_needs_no_change(
    event: dict[str, Any], given_id: object
) -> None:
    for whole in (event | {"messageId": given_id}, {"messageId": given_id} | event):
        found = plain_message_id(packed(whole))
        if found is not None:
            assert repair(whole) is None
            assert given_id == json.loads(found)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"Größe": 1, "цена": 2, "a b": 4, "a_b": {"_id": 1}},
        {"list": [{"a": [1, 2]}, {"a": "x"}] * 20, "quote": 'a\\"b\\\\', "dots": "a..b"},
    ],
)
def test_an_ordinary_event_is_not_parsed(more: dict[str, Any]) -> None:
    line = tracked(1, properties=more)
    assert json.dumps(message_id(1)).encode() == plain_message_id(line)


@pytest.mark.parametrize(
    "more",
    [
        {"_id": 1},
        {"": 1},
        {"properties": {"a": {"": 1}}},
        {"properties": {"a.b": 1}},
        *({"properties": {blank: 1}} for blank in " \t\x1f\x85\xa0\u1680\u2003\u2028\u3000"),
        {"properties": nested(20, "x")},
        {"properties": in_arrays(20, "x")},
        {"messageId": ""},
        {"messageId": "x" * 513},
        {"messageId": 'a"b'},
        {"messageId": None},
        {"messageId": {"messageId": "x"}},
    ],
)
def test_an_event_that_may_need_a_repair_is_parsed(more: dict[str, Any]) -> None:
    assert plain_message_id(tracked(1, **more)) is None


@given(st.binary(max_size=40) | st.text('{}[]":\\\\,a._ ', max_size=40).map(str.encode))
def test_bytes_that_are_not_an_event_do_no_harm(line: bytes) -> None:
    found = plain_message_id(line)
    assert found is None or found in line


def test_every_prefix_of_an_event_is_read_within_its_memory() -> None:
    line = tracked(1, p='a\\"', q={"b": ["c"]})
    for size in range(len(line)):
        plain_message_id(line[:size])
