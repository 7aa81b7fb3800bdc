"""Compare the decoder with the oracle, on random queries.

Templates are not used here; tests/event/test_template.py compares them with the decoder.
"""

from __future__ import annotations

import json
import re
import string
import tracemalloc
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from tests import oracle
from tests.event.writing import NOW_MS, open_query, without_additions, write
from tests.examples import examples

# A few names, so that parameters meet at the same place, and all names with a special meaning.
COMMON = ["a", "b", "0", "1", "-1", "c"]
SPECIAL = [
    *(
        "63 64 99999999 00 :0 : :a \\0 a\\.b \\ \\\\ properties context traits userId anonymousId "
        "event name type integrations rudderId request_ip receivedAt sku ZIP orderId x_id phone _ "
        "z cb rand writeKey sentAt timestamp originalTimestamp messageId channel é 你 __proto__ "
        "a[b] a[] build appVersion app_version api-version conversion amp;a AMP;userId"
    ).split(" "),
    *["", "\0", "a\0", "+", " ", "%", "%zz"],
]
PREFIXES = ["properties", "context", "traits", "foo", "context.page"]
VALUES = [
    *(
        "0 1 -1 -0 007 +1 1e5 .5 5. 1,5 NaN 1.5 1.50 10.00 -0.0 0.1 9007199254740991 "
        "9007199254740992 -9007199254740991 123456789.012345 0.1234567890123456 true false null "
        "2026-11-23T10:15:30Z 2026-02-29T10:00:00Z 2024-02-29t23:59:60z 0000-01-01T00:00:00+23:59 "
        "2026-11-23T10:15:30.123456789-00:00"
    ).split(" "),
    *["", " ", " 1", '"quoted"', '"', "\u200b", "\ufeffx\u00a0", "\0", "a\0b"],
]
# Placeholders, and strings that only resemble them.
IDENTITIES = [
    *(
        "undefined null NULL none None NaN (null) nan Nil Undefined nulls {{user.id}} {{id {id}} "
        "}}{{ {{}} {%id%} {%} <%=id%> <%> ${id} ${id $id} *|UNIQID|* *|* *|ID [[id]] [[id] a[[b]]c "
        "%%DEVICE_ID%% %%=v(@id)=%% %%_%% %%1%% %%a% x%%ab%%y %%%a%% CLIENT_ID(rl) CLIENT_ID( "
        "QUERY_PARAM() xCLIENT_ID(a) PAGE_VIEW_ID PAGE_VIEW_ID_64 PAGE_VIEW_ID_6 SESSION_ID "
        '"undefined" "{{id}}" 42 каша—1 "é"'
    ).split(" "),
    *["[object Object]", "[object object]", "", " ", " 42\n", "\u200b", ' "a" ', '" "', "{{a\nb}}"],
    *["a\u00a0", "\u00e9", "é\u3000", '"', "\\", "a\\n", "\x7f", "a\t"],
]
ALPHABETS = [
    string.printable,
    "0123456789-.",
    "ab\0 \t\n\x1f\x7f",
    'éßÿ\u0080\u00a0\u00ad"',
    "a\u200b\u2028\ufeff\u061c\U000e0041",
    "你好\u0800\uffff\ufffd\ue000",
    "a\U00010000\U0001f600\U0010ffff",
]
# Bytes that are not UTF-8, as `surrogateescape` represents them, and parts of characters.
RAW_BYTES = "é你\U0001f600\udcff\udc80\udce4\udcbd"
RAW = "ab.=&%+0123456789\\:;-_"


def any_string(choose: Random, max_length: int) -> str:
    alphabet = choose.choice(ALPHABETS)
    if choose.random() < 0.1:
        alphabet = chr(
            choose.choice([choose.randrange(0xD800), choose.randrange(0xE000, 0x110000)])
        )
    return "".join(choose.choices(alphabet, k=choose.randint(0, max_length)))


def key(choose: Random) -> str:
    kind = choose.randrange(7)
    if kind == 0:
        return "properties" + ".d" * choose.randint(29, 33)
    if kind < 4:
        places = choose.choices(COMMON, k=choose.randint(1, 4))
        return ".".join([choose.choice(PREFIXES), *places])
    segments = [
        choose.choice(COMMON)
        if kind < 2
        else choose.choice(SPECIAL)
        if kind == 2
        else any_string(choose, 4)
        for kind in choose.choices(range(4), k=choose.randint(1, 4))
    ]
    return ".".join(segments)


def value(choose: Random) -> str:
    kind = choose.randrange(4)
    if kind == 0:
        return choose.choice(VALUES)
    if kind == 1:
        number = choose.getrandbits(choose.choice([3, 8, 16, 54, 64, 128]))
        return choose.choice(["", "-"]) + str(number)
    if kind == 2:
        whole = choose.randrange(10 ** choose.randint(1, 12))
        digits = "".join(choose.choices("0123456789", k=choose.randint(1, 9)))
        return f"{choose.choice(['', '-'])}{whole}.{digits}"
    return any_string(choose, 8)


def time(choose: Random) -> str:
    """Return a time in one of its forms, or nearly so."""
    if choose.random() < 0.2:
        return str(choose.randrange(10 ** choose.randint(9, 14)))
    date = choose.choice(["2026-11-23", "2024-02-29", "2026-02-29", "0000-01-01", "9999-12-31"])
    clock = choose.choice(["10:15:30", "00:00:00", "23:59:60", "23:59", "10:15:61", "1:2:3"])
    fraction = choose.choice(["", "", "", ".", ",", "."])
    if fraction:
        fraction += "".join(choose.choices("0123456789", k=choose.choice([0, 1, 3, 6, 9, 10, 13])))
    offset = choose.choice(
        ["", "Z", "Z", "z", "+02:00", "-0330", " 02:00", "+2:00", "-23:59", "+1"]
    )
    string = date + choose.choice("TTTt x") + clock + fraction + offset
    return choose.choice(["", "", "", " ", "\n"]) + string + choose.choice(["", "", "", " "])


def field(choose: Random) -> tuple[str, str]:
    """Return a field whose value must be usable, and a value that may be."""
    kind = choose.randrange(8)
    if kind < 2:
        return choose.choice(["timestamp", "sentAt", "originalTimestamp"]), (
            choose.choice(["", " ", "x"]) if choose.random() < 0.3 else time(choose)
        )
    return choose.choice(
        ["userId", "anonymousId", "userId", "anonymousId", "event", "name", "channel", "messageId"]
    ), choose.choice(IDENTITIES)


def decorated(choose: Random, name: str) -> str:
    """Return a name as templates and mail programs send it."""
    if choose.random() < 0.1:
        name = choose.choice(["amp;", "AMP;", "amp;amp;", " amp; aMp; ", "amp"]) + name
    if choose.random() < 0.1:
        name = choose.choice(["", " ", "\n", "\ufeff"]) + name + choose.choice(["", " ", "\t\n"])
    return name


def sent(choose: Random, string: str) -> str:
    """Return the string as it is sent in a query: percent-encoded, or as raw as possible."""
    kind = choose.randrange(2 if "%%" in string else 8)
    if kind == 0:
        return re.sub(r"[\x00-\x20\x7f#&=]", lambda match: quote(match[0], safe=""), string)
    if kind == 1:
        return quote(string, safe=f"/?:@!$'()*,;{RAW_BYTES}")
    if kind == 2:
        return "".join(
            choose.choice([char, quote(char)]) if char > "\x7f" else quote(char, safe="")
            for char in string
        )
    return quote(string, safe="")


def parameter(seed: int) -> str:
    """Return one parameter, nearly always `key=value`. The same seed gives the same parameter."""
    choose = Random(seed)
    if choose.random() < 0.2:
        return "".join(choose.choices(RAW + RAW_BYTES, k=choose.randint(0, 30)))
    if choose.random() < 0.12:
        name, string = field(choose)
        return f"{sent(choose, decorated(choose, name))}={sent(choose, string)}"
    name = quote(decorated(choose, key(choose)), safe=choose.choice(["", ".:\\", "/?", ";"]))
    return name if choose.randrange(20) == 0 else f"{name}={sent(choose, value(choose))}"


# Hypothesis takes a tenth of a millisecond for each choice, so it chooses only one number for each
# parameter. A failure still shrinks to the fewest parameters that cause it.
SEEDS = st.integers(0, 2**64 - 1)


def target_of(seeds: list[int], seed: int) -> str:
    choose = Random(seed)
    parameters = [parameter(each) for each in seeds]
    needed = ["writeKey=k", "anonymousId=a", "event=E"]
    if choose.randrange(3) == 0:
        needed[1] = f"anonymousId={sent(choose, choose.choice(IDENTITIES))}"
        needed[2] = f"event={sent(choose, choose.choice(IDENTITIES))}"
    if choose.randrange(10) == 0:
        needed.insert(0, f"writeKey={choose.choice(['', '+', '%0A', '+k+'])}")
    if choose.randrange(10) == 0:
        needed.pop(choose.randrange(3))
    for each in needed:
        parameters.insert(choose.randint(0, len(parameters)), each)
    return f"/pixel/v1/{choose.choice(['track', 'page'])}?{'&'.join(parameters)}"


def rules_of(seed: int) -> dict[str, object]:
    choose = Random(seed)
    places = (
        "properties.a properties.a.a properties.a.0 properties.0 properties.-1 properties "
        "properties.sku foo.a foo foo.0 0 context.page.a context.page.1.a"
    ).split()
    return {
        "numbers": choose.random() < 0.5,
        "booleans": choose.random() < 0.5,
        "strings": frozenset(choose.sample(places, choose.randint(0, 4))),
        "force_numbers": frozenset(choose.sample(places, choose.randint(0, 4))),
        "ignore": choose.choice([frozenset(), frozenset({"_", "z", "cb", "rand"})]),
        "keeps_placeholders": choose.random() < 0.2,
    }


def targets() -> st.SearchStrategy[str]:
    return st.builds(target_of, st.lists(SEEDS, max_size=12), SEEDS)


def rules() -> st.SearchStrategy[dict[str, object]]:
    return SEEDS.map(rules_of)


WRITER = EventWriter(uses_templates=False)


def decode(target: str, kept: dict[str, object]) -> tuple[int, str, list[str], dict[str, object]]:
    """Return status, event without the server's additions, keys of warnings, and whole event."""
    try:
        WRITER.open(target.encode("utf-8", "surrogateescape"))
        if not WRITER.write_key():
            raise RequestError(400, "no-write-key")
        encoded, warnings = WRITER.write(Rules(**kept), NOW_MS)  # type: ignore[arg-type]
    except RequestError as error:
        return error.status, "null", [], {}
    full = json.loads(encoded)
    keys = [key.decode("utf-8", "surrogateescape") for _, key in warnings]
    return 200, json.dumps(without_additions(full)), keys, full


def bytes_of(key: str) -> bytes:
    """Return the bytes of a key: bytes that are invalid alone may form a character together."""
    return key.encode("utf-8", "surrogateescape")


@examples(3000)
@given(targets(), rules())
@example("/pixel/v1/page?event=e&anonymousId=a&\udce4\udc80\udcbdb96.&writeKey=k", {})
@example("/pixel/v1/page?writeKey=k&userId=1&a=1&a=2&a.b=3", {})
@example("/pixel/v1/page?writeKey=k&userId=1&a.b=3&a=1&a=2", {})
@example("/pixel/v1/page?writeKey=k&userId=1&properties.a.0=1&properties.a.b=1", {})
@example("/pixel/v1/page?writeKey=k&userId=1&properties.orderId.x=1&properties.orderId.0=5", {})
@example("/pixel/v1/page?writeKey=k&anonymousId=a&userId=%%DEVICE_ID%%", {})
@example("/pixel/v1/page?writeKey=k&userId=1&a[]=1&a[]=2&a[].b=3&b%5B%5D=1&b[]=2&b[]=3", {})
@example("/pixel/v1/page?writeKey=k&userId=1&a[].b=3&a[]=1&a[]=2&c.[]=1&c.[]=2", {})
@example("/pixel/v1/page?writeKey=k&userId=1&sentAt=&sentAt=x&sentAt=+&timestamp=&timestamp=+", {})
def test_the_decoder_agrees_with_the_oracle(target: str, kept: dict[str, object]) -> None:
    expected = oracle.expect(target, oracle.Rules(**kept))  # type: ignore[arg-type]
    status, event, warnings, full = decode(target, kept)
    assert expected.status == status
    assert json.dumps(expected.event) == event  # with the order of the keys
    assert sorted(map(bytes_of, expected.warnings)) == sorted(map(bytes_of, warnings))
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
def test_the_name_of_a_place_leaves_out_array_indexes(
    query: str, kept: dict[str, object], event: dict[str, object]
) -> None:
    _, event_json, _, _ = decode(f"/pixel/v1/page?writeKey=k&userId=u&{query}", kept)
    assert {"type": "page", "userId": "u", **event} == json.loads(event_json)


@pytest.mark.parametrize(
    ("query", "omitted"),
    [
        ("properties.a=1&properties.a.b=2", ["properties.a"]),
        ("properties.a.b=2&properties.a=1", ["properties.a"]),
        ("a=1&%61=2&a.b=2&a.c=3", ["a", "%61"]),
        ("t.-1=1&t.0=2&t.-1=3&t.0.a=4&t.1.a=5", ["t.-1", "t.-1", "t.0"]),
        ("t.0.a=1&t.-1=2&t.b=3&t.1.c=4", ["t.-1", "t.b"]),
        ("a=1&a.b=2&a.b.c=3", ["a", "a.b"]),
    ],
)
def test_a_warning_names_the_parameter_that_was_omitted(query: str, omitted: list[str]) -> None:
    _, _, warnings, _ = decode(f"/pixel/v1/page?writeKey=k&userId=u&{query}", {})
    assert sorted(omitted) == sorted(warnings)


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_the_decoder_accepts_any_bytes(query: bytes) -> None:
    for writer in (WRITER, EventWriter()):
        encoded, _ = write(
            writer,
            b"writeKey=k&userId=u&event=e&" + query,
            Rules(),
            is_track=True,
            address="192.0.2.1",
            user_agent=b"agent",
        )
        assert b"\n" not in encoded
        assert json.loads(encoded)["userId"] == "u" or b"userId" in query


def test_the_slots_of_arrays_are_limited() -> None:
    """Each parameter has 150 bytes and would create 2,000 array slots."""
    path = ".63" * 30
    query = "&".join(f"properties.p{n}{path}=1" for n in range(200))
    with pytest.raises(RequestError, match="more than 16,384 slots") as caught:
        write(EventWriter(), f"writeKey=k&userId=u&{query}".encode(), Rules())
    assert (413, "event-too-large") == (caught.value.status, caught.value.reason)


def test_the_limit_of_slots_rejects_only_events_that_are_too_large_anyway() -> None:
    def encoded(arrays: int, more: str = "") -> bytes:
        """Write an event with 128 slots for each array: 126 gaps, an array and a value."""
        query = "&".join(f"properties.p{n}.63.63=1" for n in range(arrays)) + more
        return write(EventWriter(), f"userId=u&{query}".encode(), Rules())[0]

    assert 48 * 126 == encoded(48).count(b"null")
    with pytest.raises(RequestError, match=r"the event is \d+,\d+ bytes long"):
        encoded(128)  # 16,384 slots
    with pytest.raises(RequestError, match="more than 16,384 slots"):
        encoded(128, "&properties.q.0=1")


@pytest.mark.parametrize(("size", "status"), [(32_768, 200), (32_769, 413)])
@pytest.mark.parametrize("uses_templates", [True, False])
def test_an_event_may_have_32768_bytes(size: int, status: int, uses_templates: bool) -> None:
    writer = EventWriter(uses_templates=uses_templates)

    def encoded(value: str) -> bytes:
        query = f"writeKey=k&userId=u&properties.a={value}".encode()
        return write(writer, query, Rules(), address="192.0.2.1")[0]

    for _ in range(9):
        empty = len(encoded(""))
    assert uses_templates == (writer.from_templates > 0)
    if status == 200:
        assert size == len(encoded("x" * (size - empty)))
    else:
        with pytest.raises(RequestError, match="32,769 bytes long; the limit is 32,768") as caught:
            encoded("x" * (size - empty))
        assert (413, "event-too-large") == (caught.value.status, caught.value.reason)


def test_a_writer_forgets_the_previous_query() -> None:
    writer = EventWriter()
    deep = b"writeKey=k&userId=u&context.a=1&properties.b=2&x=3" + b"&d" + b".d" * 40
    with pytest.raises(RequestError) as caught:
        write(writer, deep, Rules())
    assert (400, "too-deep") == (caught.value.status, caught.value.reason)
    encoded, _ = write(writer, b"writeKey=k2&anonymousId=a", Rules())
    assert writer.write_key() == "k2"
    assert without_additions(json.loads(encoded)) == {"type": "page", "anonymousId": "a"}


def test_random_keys_do_not_grow_memory_without_limit() -> None:
    writer = EventWriter()

    def send(start: int) -> None:
        for n in range(start, start + 6000):
            open_query(writer, b"writeKey=k&properties.%d=1" % n)

    send(0)
    tracemalloc.start()
    send(6_000)
    first = tracemalloc.get_traced_memory()[0]
    send(12_000)
    send(18_000)
    assert tracemalloc.get_traced_memory()[0] < first + 2**20
    tracemalloc.stop()
