"""Hostile events and wrong settings against a real Elasticsearch and a real OpenSearch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pixelfast.config import ElasticsearchDestination
from pixelfast.spool import DataDir
from tests.deliver.products.engines import SHORT, ask, dead_letters, deliver
from tests.deliver.products.events import message_id, tracked
from tests.spools import open_data

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "destinations.md"

# Each is rejected by one of the products if it is sent unchanged.
RESERVED = [
    "_id", "_source", "_index", "_routing", "_version", "_ignored", "_field_names", "_seq_no",
    "_type", "_doc_count", "_nested_path", "_primary_term", "_data_stream_timestamp", "_source.a",
    "_id.x", "_nested_path.x",
]  # fmt: skip
BLANK = [
    "",
    " ",
    "\t",
    "\u3000",
    "\u2003",
    ".",
    "..",
    "...",
    ".a",
    "a.",
    "a..b",
    " .a",
    "a. ",
    "a. .b",
]


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return open_data(tmp_path / "data")


@pytest.fixture
def index(search: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a test's indexes, which are deleted afterwards."""
    name = f"events-{abs(hash(request.node.name)):x}"
    yield name
    ask(f"{search}/{name}*", "DELETE", ignore_unavailable="true", expand_wildcards="all")


def destination(search: str, index: str, **more: Any) -> ElasticsearchDestination:
    return ElasticsearchDestination(name="search", url=search, index=index, **{**SHORT, **more})


def documents(search: str, index: str) -> dict[str, dict[str, Any]]:
    """Return all documents by their ids."""
    ask(f"{search}/{index}/_refresh", "POST")
    response = ask(f"{search}/{index}/_search", "POST", {"size": 10_000})
    return {hit["_id"]: hit["_source"] for hit in response["hits"]["hits"]}


def nested(depth: int, value: object = "x") -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def in_arrays(depth: int, value: object = 1) -> Any:
    for _ in range(depth):
        value = [value]
    return value


# Each group has its own index, because one name with a string and with an object is another error.
HOSTILE: dict[str, list[dict[str, Any]]] = {
    "text": [
        *({name: "x"} for name in RESERVED + BLANK),
        *({"properties": {n: "x"}} for n in BLANK),
    ],
    "numbers": [{name: 5} for name in RESERVED],
    "objects": [
        *({name: {"b": "x"}} for name in RESERVED + BLANK),
        *({"context": {"a": [{"b": {name: {"c": "x"}}}]}} for name in BLANK),
    ],
    "shapes": [
        {"properties": {"a..b": 1, "a.b": 2, "field_a__b": 3}},
        {"properties": nested(30)},
        {"properties": nested(20)},
        {"properties": {"q": [nested(25), nested(25)]}},
        {"properties": {".".join("b" * 40): 1}},
        {"properties": {"d": {".".join("b" * 19): 1}}},
        {"properties": {"r": in_arrays(30)}},
        {"properties": {"x" * 30_000: 1}},
    ],
}


@pytest.mark.parametrize("group", HOSTILE)
def test_documents_that_no_index_accepts_are_stored_repaired(
    search: str, index: str, data: DataDir, group: str
) -> None:
    hostile = [tracked(n, **each) for n, each in enumerate(HOSTILE[group], 1000)]
    good = [tracked(n) for n in range(3 * len(hostile))]
    events = [event for four in zip(*[iter(good)] * 3, hostile, strict=True) for event in four]
    figures = deliver(destination(search, index, max_events=50), data, events)
    assert ("healthy", len(events)) == (figures["state"], figures["delivered"])
    assert [] == dead_letters(data, "search")
    stored = documents(search, index)
    assert {message_id(n): json.loads(good[n]) for n in range(len(good))} == {
        message_id(n): stored[message_id(n)] for n in range(len(good))
    }
    assert len(events) == len(stored)


def test_events_that_do_not_fit_the_mapping_are_dead_letters_with_the_reason(
    search: str, index: str, data: DataDir
) -> None:
    secret = "c2VjcmV0LWtleQ=="
    ask(
        f"{search}/{index}",
        "PUT",
        {"mappings": {"properties": {"properties": {"properties": {"number": {"type": "long"}}}}}},
    )
    bad = {
        100: {"number": "\u0001" * 3000 + "many"},
        101: {"number": {"a": 1}},
        102: {"number": 1, "number.a": 2},
        103: {"mixed": ["x", {"a": 1}]},
        104: {"number": "t" * 25_000},
    }
    events = [tracked(n) for n in range(60)]
    events += [tracked(n, properties=each) for n, each in bad.items()]
    events += [tracked(n) for n in range(200, 260)]
    figures = deliver(destination(search, index, api_key=secret), data, events)
    assert (120, len(bad)) == (figures["delivered"], figures["dead"])
    letters = dead_letters(data, "search")
    assert {message_id(n) for n in bad} == {letter.event["messageId"] for letter in letters}
    for letter in letters:
        assert letter.reason.startswith("status 400, ")
        assert len(letter.response.encode()) <= 1024
        assert secret not in letter.response
        assert "Authorization" not in letter.response
    responses = {letter.event["messageId"]: letter.response for letter in letters}
    assert "For input string" in responses[message_id(100)]
    assert "not numeric" in responses[message_id(101)]
    assert "For input string" in responses[message_id(104)]


def test_with_the_documented_mapping_no_client_can_spoil_a_field(
    search: str, index: str, data: DataDir
) -> None:
    (mapping,) = re.findall(r"```json\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    ask(f"{search}/{index}", "PUT", json.loads(mapping))
    shapes = ["x", 1, 1.5, {"b": "x"}, ["x", {"a": 1}], "2026-01-31", "z" * 30_000, nested(25)]
    events = [tracked(n, properties={"number": n, "any": each}) for n, each in enumerate(shapes)]
    events += [tracked(n, any=each) for n, each in enumerate(shapes, 100)]
    events += [tracked(n, properties={f"{n}-{m}": 1 for m in range(200)}) for n in range(200, 210)]
    events += [tracked(300, properties={"price": "cheap"}), tracked(301, event="e" * 30_000)]
    figures = deliver(destination(search, index), data, events)
    assert (len(events), 0) == (figures["delivered"], figures.get("dead", 0))


def test_a_client_that_fills_the_mapping_does_not_stop_events_with_known_names(
    search: str, index: str, data: DataDir
) -> None:
    wide = [
        tracked(n, properties={f"x{n}-{each}": 1 for each in range(200)}) for n in range(100, 109)
    ]
    good = [tracked(n) for n in range(60)]
    figures = deliver(destination(search, index), data, [*good[:30], *wide, *good[30:]])
    assert "healthy" == figures["state"]
    assert {message_id(n) for n in range(60)} <= documents(search, index).keys()
    letters = dead_letters(data, "search")
    assert letters
    for letter in letters:
        assert "Limit of total fields [1000] has been exceeded" in letter.response


def close(search: str, index: str) -> Callable[[], None]:
    ask(f"{search}/{index}", "PUT")
    ask(f"{search}/{index}/_close", "POST")
    return lambda: ask(f"{search}/{index}/_open", "POST")


def lose_write_index(search: str, index: str) -> Callable[[], None]:
    for each in ("1", "2"):
        ask(f"{search}/{index}-{each}", "PUT", {"aliases": {index: {}}})
    alias = {"index": f"{index}-1", "alias": index, "is_write_index": True}
    return lambda: ask(f"{search}/_aliases", "POST", {"actions": [{"add": alias}]})


def lose_pipeline(search: str, index: str) -> Callable[[], None]:
    ask(f"{search}/{index}", "PUT", {"settings": {"index.default_pipeline": "missing"}})
    none = {"index.default_pipeline": "_none"}
    return lambda: ask(f"{search}/{index}/_settings", "PUT", none)


def block(name: str) -> Callable[[str, str], Callable[[], None]]:
    def wrong(search: str, index: str) -> Callable[[], None]:
        ask(f"{search}/{index}", "PUT")
        ask(f"{search}/{index}/_settings", "PUT", {name: True})
        return lambda: ask(f"{search}/{index}/_settings", "PUT", {name: None})

    return wrong


def cluster(name: str, value: str) -> Callable[[str, str], Callable[[], None]]:
    def wrong(search: str, index: str) -> Callable[[], None]:  # noqa: ARG001 - of all indices
        ask(f"{search}/_cluster/settings", "PUT", {"transient": {name: value}})
        return lambda: ask(f"{search}/_cluster/settings", "PUT", {"transient": {name: None}})

    return wrong


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (close, "status 400, index_closed_exception"),
        (lose_write_index, "status 400, illegal_argument_exception"),
        (lose_pipeline, "status 400, illegal_argument_exception"),
        (block("index.blocks.write"), "status 403, cluster_block_exception"),
        (block("index.blocks.read_only_allow_delete"), "status 429, cluster_block_exception"),
        (cluster("action.auto_create_index", "false"), "status 404, index_not_found_exception"),
        (cluster("cluster.max_shards_per_node", "1"), "status 400, validation_exception"),
    ],
    ids=["closed", "write index", "pipeline", "write", "flood stage", "auto create", "shards"],
)
def test_wrong_settings_hold_the_destination_without_dead_letters(
    search: str,
    index: str,
    data: DataDir,
    wrong: Callable[[str, str], Callable[[], None]],
    reason: str,
) -> None:
    ask(f"{search}/{index}-other", "PUT")  # existing shards count
    events = [tracked(n) for n in range(1500)]
    repair = wrong(search, index)
    try:
        figures = deliver(destination(search, index), data, events, "held")
        assert ("held", 0, 0) == tuple(
            figures.get(name, 0) for name in ("state", "dead", "delivered")
        )
        assert reason in figures["last_error"]
    finally:
        repair()
    figures = deliver(destination(search, index), data)
    assert (1500, 0) == (figures["delivered"], figures.get("dead", 0))
    assert {message_id(n) for n in range(1500)} == documents(search, index).keys()


@pytest.mark.parametrize("name", ["Upper", "a-colon:b"])
def test_an_invalid_index_name_holds_the_destination(search: str, data: DataDir, name: str) -> None:
    figures = deliver(destination(search, name), data, [tracked(n) for n in range(50)], "held")
    assert ("held", 0) == (figures["state"], figures.get("dead", 0))
    assert "invalid_index_name_exception" in figures["last_error"]


def test_a_data_stream_holds_the_destination_until_events_have_a_timestamp(
    search: str, index: str, data: DataDir
) -> None:
    if "opensearch" not in json.dumps(ask(search)):
        pytest.skip("Elasticsearch has data streams only with its licensed plugins")
    ask(
        f"{search}/_index_template/{index}",
        "PUT",
        {"index_patterns": [index], "data_stream": {}},
    )
    ask(f"{search}/_data_stream/{index}", "PUT")
    try:
        events = [tracked(n) for n in range(100)]
        events.insert(50, tracked(100, **{"@timestamp": ["2026-01-01", "2026-01-02"]}))
        figures = deliver(destination(search, index), data, events, "held")
        assert ("held", 0) == (figures["state"], figures.get("dead", 0))
        assert "status 400, mapper_parsing_exception" in figures["last_error"]
    finally:
        ask(f"{search}/_data_stream/{index}", "DELETE")
        ask(f"{search}/_index_template/{index}", "DELETE")
    figures = deliver(destination(search, index), data)
    assert (101, 0) == (figures["delivered"], figures.get("dead", 0))
