"""The decoder against the oracle, on queries that nobody would write by hand."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelfast.errors import RequestError
from pixelfast.event import Decoder, Rules, complete_event, encode_event, route_of
from tests import oracle

NOW_MS = 1_700_000_000_000
GIVEN = ("messageId", "channel", "originalTimestamp", "sentAt", "timestamp")

# Few names, so that parameters meet at the same place; and all that has a meaning somewhere.
COMMON = st.sampled_from(["a", "b", "0", "1", "-1", "c"])
SPECIAL = st.sampled_from(
    "63 64 99999999 00 :0 : :a \\0 a\\.b \\ \\\\ properties context traits userId anonymousId "
    "event name type integrations rudderId request_ip receivedAt sku ZIP orderId x_id phone _ z "
    "cb rand writeKey sentAt timestamp originalTimestamp messageId channel é 你 __proto__ "
    "a[b]".split(" ")
    + ["", "\0", "a\0", "+", " ", "%", "%zz"]
)
SEGMENT = st.one_of(COMMON, COMMON, SPECIAL, st.text(max_size=4))
KEY = st.one_of(
    st.lists(SEGMENT, min_size=1, max_size=4).map(".".join),
    st.tuples(
        st.sampled_from(["properties", "context", "traits", "foo", "context.page"]),
        st.lists(COMMON, min_size=1, max_size=4).map(".".join),
    ).map(".".join),
    st.integers(30, 34).map(lambda depth: "properties" + ".d" * (depth - 1)),
)
VALUE = st.one_of(
    st.sampled_from(
        "0 1 -1 -0 007 +1 1e5 .5 5. 1,5 NaN 1.5 1.50 10.00 -0.0 0.1 9007199254740991 "
        "9007199254740992 -9007199254740991 123456789.012345 0.1234567890123456 true false null "
        "2026-11-23T10:15:30Z 2026-02-29T10:00:00Z 2024-02-29t23:59:60z 0000-01-01T00:00:00+23:59 "
        "2026-11-23T10:15:30.123456789-00:00".split(" ")
        + ["", " ", " 1", '"quoted"', '"', "\u200b", "\ufeffx\u00a0", "\0", "a\0b"]
    ),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.text(max_size=8),
)


@st.composite
def pairs(draw: st.DrawFn) -> str:
    key, value = draw(KEY), draw(VALUE)
    safe = draw(st.sampled_from(["", ".:\\", "/?"]))
    text = quote(key, safe=safe)
    return text if draw(st.integers(0, 20)) == 0 else f"{text}={quote(value, safe='')}"


RAW = st.text(st.sampled_from("ab.=&%+0123456789\\:;-_"), max_size=30)


@st.composite
def targets(draw: st.DrawFn) -> str:
    parameters = draw(st.lists(st.one_of(pairs(), pairs(), pairs(), RAW), max_size=12))
    needed = ["writeKey=k", "anonymousId=a", "event=E"]
    if draw(st.integers(0, 9)) == 0:
        needed.pop(draw(st.integers(0, 2)))
    for each in needed:
        parameters.insert(draw(st.integers(0, len(parameters))), each)
    return f"/pixel/v1/{draw(st.sampled_from(['track', 'page']))}?{'&'.join(parameters)}"


@st.composite
def rules(draw: st.DrawFn) -> dict[str, object]:
    places = st.frozensets(
        st.sampled_from(
            "properties.a properties.a.a properties.a.0 properties.0 properties.-1 properties "
            "properties.sku foo.a foo foo.0 0 context.page.a context.page.1.a".split()
        ),
        max_size=4,
    )
    return {
        "numbers": draw(st.booleans()),
        "booleans": draw(st.booleans()),
        "strings": draw(places),
        "force_numbers": draw(places),
        "ignore": draw(st.sampled_from([frozenset(), frozenset({"_", "z", "cb", "rand"})])),
    }


def decode(target: str, kept: dict[str, object]) -> tuple[int, str, list[str], dict[str, object]]:
    route, query = route_of(target.encode())
    decoder = Decoder()
    try:
        decoder.split(query)
        if not decoder.write_key():
            raise RequestError(400, "no-write-key")
        event = decoder.decode(Rules(**kept), route == "track")  # type: ignore[arg-type]
        full = complete_event(event, NOW_MS)
    except RequestError as error:
        return error.status, "null", [], {}
    warned = [key.decode() for _, key in event.warnings]
    return 200, json.dumps(event.to_dict()), warned, full


@settings(max_examples=3000)
@given(targets(), rules())
@example("/pixel/v1/page?writeKey=k&userId=1&a=1&a=2&a.b=3", {})
@example("/pixel/v1/page?writeKey=k&userId=1&a.b=3&a=1&a=2", {})
@example("/pixel/v1/page?writeKey=k&userId=1&properties.a.0=1&properties.a.b=1", {})
@example("/pixel/v1/page?writeKey=k&userId=1&properties.orderId.x=1&properties.orderId.0=5", {})
def test_the_decoder_agrees_with_the_oracle(target: str, kept: dict[str, object]) -> None:
    expected = oracle.expect(target, oracle.Rules(**kept))  # type: ignore[arg-type]
    status, event, warnings, full = decode(target, kept)
    assert expected.status == status
    assert json.dumps(expected.event) == event  # with the order of the keys
    assert sorted(expected.warnings) == sorted(warnings)
    assert expected.given == {name: full[name] for name in expected.given}


@pytest.mark.parametrize(
    ("query", "kept", "event"),
    [
        ("properties.0=5", {"strings": ["properties.0"]}, {"properties": {"0": "5"}}),
        ("properties.0=5", {"strings": ["properties"]}, {"properties": {"0": 5}}),
        ("properties.-1=5", {"strings": ["properties.-1"]}, {"properties": {"-1": "5"}}),
        ("0=5", {"force_numbers": ["0"]}, {"0": 5}),
        ("a.0=5", {"strings": ["a"]}, {"a": ["5"]}),
        ("a.-1.-1.b=5&a.0.1.b=6", {"strings": ["a.b"]}, {"a": [[{"b": "5"}, {"b": "6"}]]}),
        ("a.0=5", {"strings": ["a.0"]}, {"a": [5]}),
        ("a.b=x&a.0=5", {"strings": ["a.0"]}, {"a": {"b": "x", "0": "5"}}),
        ("a.:0=5", {"strings": ["a.0"]}, {"a": {"0": "5"}}),
    ],
)
def test_a_place_is_named_by_its_names_without_the_indexes_of_arrays(
    query: str, kept: dict[str, object], event: dict[str, object]
) -> None:
    _, text, _, _ = decode(f"/pixel/v1/page?writeKey=k&userId=u&{query}", kept)
    assert {"type": "page", "userId": "u", **event} == json.loads(text)


@pytest.mark.parametrize(
    ("query", "left_out"),
    [
        ("properties.a=1&properties.a.b=2", ["properties.a"]),
        ("properties.a.b=2&properties.a=1", ["properties.a"]),
        ("a=1&%61=2&a.b=2&a.c=3", ["a", "%61"]),
        ("t.-1=1&t.0=2&t.-1=3&t.0.a=4&t.1.a=5", ["t.-1", "t.-1", "t.0"]),
        ("t.0.a=1&t.-1=2&t.b=3&t.1.c=4", ["t.-1", "t.b"]),
        ("a=1&a.b=2&a.b.c=3", ["a", "a.b"]),
    ],
)
def test_a_warning_names_the_parameter_that_was_left_out(query: str, left_out: list[str]) -> None:
    _, _, warnings, _ = decode(f"/pixel/v1/page?writeKey=k&userId=u&{query}", {})
    assert sorted(left_out) == sorted(warnings)


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail(query: bytes) -> None:
    decoder = Decoder()
    decoder.split(b"writeKey=k&userId=u&event=e&" + query)
    event = decoder.decode(Rules(), True)
    encoded = encode_event(event, NOW_MS, "192.0.2.1", "agent", None)
    assert b"\n" not in encoded
    assert json.loads(encoded)["userId"] == "u" or b"userId" in query


def test_arrays_can_not_eat_the_memory() -> None:
    """Each parameter is 150 bytes of query and would be 2,000 slots of arrays."""
    path = ".63" * 30
    query = "&".join(f"properties.p{n}{path}=1" for n in range(200))
    decoder = Decoder()
    decoder.split(f"writeKey=k&userId=u&{query}".encode())
    with pytest.raises(RequestError) as caught:
        decoder.decode(Rules(), False)
    assert (413, "event-too-large") == (caught.value.status, caught.value.reason)


def test_an_event_that_is_bounded_by_slots_is_too_large_in_json_as_well() -> None:
    """The bound on slots must never refuse an event that would have been small enough."""
    slots = 16_384
    smallest_json = slots * len("0,")
    assert smallest_json >= 32_768


@pytest.mark.parametrize(("size", "status"), [(32_768, 200), (32_769, 413)])
def test_an_event_may_have_32768_bytes(size: int, status: int) -> None:
    decoder = Decoder()
    decoder.split(b"writeKey=k&userId=u&properties.a=")
    event = decoder.decode(Rules(), False)
    event.to_dict()["properties"]["a"] = ""
    empty = len(encode_event(event, NOW_MS, "192.0.2.1", None, None))
    event.to_dict()["properties"]["a"] = "x" * (size - empty)
    if status == 200:
        assert size == len(encode_event(event, NOW_MS, "192.0.2.1", None, None))
    else:
        with pytest.raises(RequestError, match="32,769 bytes, limit 32,768"):
            encode_event(event, NOW_MS, "192.0.2.1", None, None)


def test_a_query_may_have_32768_bytes() -> None:
    decoder = Decoder()
    start = b"writeKey=k&userId=u&a="
    assert decoder.split(start + b"x" * (32_768 - len(start))) == 3
    with pytest.raises(RequestError) as caught:
        decoder.split(start + b"x" * (32_769 - len(start)))
    assert caught.value.status == 414


def test_a_decoder_forgets_the_query_before() -> None:
    decoder = Decoder()
    decoder.split(b"writeKey=k&userId=u&context.a=1&properties.b=2&x=3" + b"&d" + b".d" * 40)
    decoder.split(b"writeKey=k2&anonymousId=a")
    assert decoder.write_key() == "k2"
    assert decoder.decode(Rules(), False).to_dict() == {"type": "page", "anonymousId": "a"}


def test_random_keys_do_not_grow_the_memory_for_ever() -> None:
    import tracemalloc

    decoder = Decoder()

    def send(start: int) -> None:
        for n in range(start, start + 6000):
            decoder.split(b"writeKey=k&properties.%d=1" % n)

    send(0)
    tracemalloc.start()
    send(6_000)
    first = tracemalloc.get_traced_memory()[0]
    send(12_000)
    send(18_000)
    assert tracemalloc.get_traced_memory()[0] < first + 2**20
    tracemalloc.stop()
