"""Compare templates with orjson, byte for byte; what a template cannot write is left to orjson."""

from __future__ import annotations

import itertools
import os
import re
import string
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from tests.event.test_decoder import IDENTITIES, SEEDS, rules, sent, targets, time
from tests.event.writing import NOW_MS, write
from tests.examples import examples

MESSAGE_ID = re.compile(rb'"messageId":"[0-9a-f]{8}-[0-9a-f-]{27}"')
ENOUGH = 5  # requests until a shape has a template

Found = tuple[bytes, list[tuple[str, bytes]]] | None

WRITER, BY_ORJSON = EventWriter(), EventWriter(uses_templates=False)


@cache
def rules_of(kept: tuple[tuple[str, object], ...]) -> Rules:
    return Rules(**dict(kept))  # type: ignore[arg-type]


def by_orjson(query: bytes, own: Rules, **request: Any) -> Found:
    """Return the event by the decoder and orjson, or None if the query is rejected."""
    try:
        return write(BY_ORJSON, query, own, **request)
    except RequestError:
        return None


def by_template(
    query: bytes, own: Rules, *, writer: EventWriter = WRITER, **request: Any
) -> tuple[Found, bool]:
    """Return the event of a frequent shape, and whether a template wrote it."""
    found = None
    for _ in range(ENOUGH):
        before = writer.from_templates
        try:
            found = write(writer, query, own, **request)
        except RequestError:
            return None, False
        if writer.from_templates > before:
            return found, True
    return found, False


def assert_same(
    query: bytes,
    *,
    is_track: bool = True,
    agent: bytes = b"",
    headers: dict[str, Any] | None = None,
    **kept: object,
) -> bool:
    """Compare both ways; return whether a template wrote the event.

    `headers` has further arguments of `EventWriter.write`, and `kept` those of the rules.
    """
    own = rules_of(tuple(sorted(kept.items())))
    request = {"is_track": is_track, "user_agent": agent, **(headers or {})}
    expected = by_orjson(query, own, **request)
    found, is_from_template = by_template(query, own, **request)
    if expected is None or found is None:
        assert expected is found
        return False
    assert MESSAGE_ID.sub(b"", expected[0]) == MESSAGE_ID.sub(b"", found[0])
    assert len(expected[0]) == len(found[0])
    assert expected[1] == found[1]
    return is_from_template


AGENTS = st.one_of(
    st.just(b""),
    st.text(string.printable.strip(), min_size=1).map(str.encode),
    st.text(min_size=1).map(lambda text: text.encode().strip()),
    st.binary(min_size=1).map(bytes.strip),
)


FILLS = frozenset({"ip", "referer", "locale"})
FILL = st.sets(st.sampled_from(sorted(FILLS))).map(frozenset)
LANGUAGES = st.one_of(
    st.sampled_from(
        [b"de-AT", b"en-US,en;q=0.5", b"*", b" , *;q=0.1,, de ;q=1", b";q=1", b",", b" "]
    ),
    AGENTS,
)
ADDRESSES = st.sampled_from(["", "192.0.2.1", "2001:db8::1"])
MESSAGE_IDS = st.sampled_from([b"", b"", b"5f0c2a", b"!" * 128])
TIMES_MS = st.sampled_from([0, -1, NOW_MS, NOW_MS + 1, 253402300799999, -62167219200000])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "address": ADDRESSES,
        "referer": AGENTS,
        "languages": LANGUAGES,
        "message_id": MESSAGE_IDS,
        "received_ms": TIMES_MS,
    },
)


@examples(1000)
@given(targets(), rules(), FILL, AGENTS, HEADERS)
@example("/pixel/v1/page?writeKey=k&userId=1&a=1&a=2&a.b=3", {}, frozenset(), b"", {})
@example("/pixel/v1/track?userId=1&event=e&properties.a.3=1&properties.a.-1=2", {}, FILLS, b"x", {})
def test_any_query(
    target: str,
    kept: dict[str, object],
    fill: frozenset[str],
    agent: bytes,
    headers: dict[str, Any],
) -> None:
    path, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    assert_same(query, is_track=b"track" in path, agent=agent, headers=headers, fill=fill, **kept)


# Parts of a value: percent-encoded or not, valid or not.
PIECES = st.one_of(
    st.text().map(lambda text: quote(text, safe="").encode()),
    st.text().map(str.encode),
    st.binary().map(lambda raw: quote(raw, safe="").encode()),
    st.binary(),
    st.sampled_from(
        [b"%", b"%zz", b"%0", b"+", b"%22", b"%5C", b"%0A", b"%00", b"%1f", b'"', b"\\"]
    ),
)
VALUES = st.one_of(st.lists(PIECES, max_size=4).map(b"".join), st.just(b""))


@examples(1000)
@given(VALUES, VALUES, VALUES, VALUES, st.booleans())
def test_any_value(user: bytes, event: bytes, value: bytes, context: bytes, is_track: bool) -> None:
    values = [each.replace(b"&", b"%26") for each in (user, event, value, context)]
    query = b"userId=%b&event=%b&properties.a=%b&context.page.title=%b&anonymousId=a" % tuple(
        values
    )
    assert_same(query, is_track=is_track)
    query = b"anonymousId=%b&name=%b&properties.a=%b&x=%b" % tuple(values)
    assert_same(query, is_track=False, booleans=True)


SPECIAL = st.one_of(
    st.builds(sent, SEEDS.map(Random), st.sampled_from(IDENTITIES)).map(
        lambda string: string.encode("utf-8", "surrogateescape")
    ),
    VALUES.map(lambda raw: raw.replace(b"&", b"%26")),
)


@examples(3000)
@given(st.lists(SPECIAL, min_size=5, max_size=5), st.sampled_from([b"", b"agent"]), st.booleans())
def test_any_value_that_is_trimmed_or_omitted(
    values: list[bytes], agent: bytes, keeps_placeholders: bool
) -> None:
    """Each value is in a field that treats it specially; nearly all shapes have a template."""
    query = b"userId=%b&event=%b&name=%b&channel=%b&context.userAgent=%b&anonymousId=a"
    for is_track in (True, False):
        assert_same(
            query % tuple(values),
            is_track=is_track,
            agent=agent,
            keeps_placeholders=keeps_placeholders,
        )


NUMBERS = st.one_of(
    st.integers(-(10**17), 10**17).map(str),
    st.from_regex(r"\A-?[0-9]{1,9}(\.[0-9]{1,9})?\Z"),
    st.from_regex(r"\A-?0\.0{0,8}[0-9]{1,7}\Z"),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.from_regex(r"\A[-+.0-9eE]{1,19}\Z"),
)


@examples(2000)
@given(NUMBERS)
def test_any_number(number: str) -> None:
    assert_same(b"userId=a&event=e&properties.a=" + number.encode())
    assert_same(b"userId=a&event=e&properties.a=" + quote(number, safe="").encode())


@pytest.mark.parametrize(
    "query",
    [
        "writeKey=k&anonymousId=anon-1&event=Product%20Viewed&properties.revenue=29.99",
        "userId=&anonymousId=a&event=e&context.page.path=%2Fproduct%2F1",
        "userId=7&anonymousId=&event=e",
        "userId=7&event=e&properties.a=%E4%BD%A0%22%0A+%5C",
        "userId=7&event=e&properties.a=1.50&properties.b=-0.25&properties.c=007",
        "userId=7&event=e&type=x&properties=no&properties.a.0.b=1",
        "userId=a%40example.com&event=e",
        "userId=7&event=e&messageId=5f0c2a",
        "userId=7&event=e&messageId=",
        "userId=7&event=e&messageId=m%22%E4%BD%A0",
        "userId=7&event=e&sentAt=2026-11-23T10:15:30Z",
        "userId=7&event=e&sentAt=2026-11-23T10%3A15%3A30.123456789%2B01%3A00",
        "userId=7&event=e&sentAt=1795342530&originalTimestamp=1795342530123",
        "userId=7&event=e&sentAt=2026-11-23+10:15&originalTimestamp=2026-11-23t10:15:60,5+0100",
        "userId=7&event=e&timestamp=2026-11-23T10:15:30.123456-18:01",
        "userId=7&event=e&timestamp=0000-01-01T00:00:00Z&sentAt=9999-12-31T23:59:59.999Z"
        "&originalTimestamp=1970-01-01T00:00:00Z&messageId=m",
    ],
)
def test_common_queries_have_a_template(query: str) -> None:
    for agent in (b"", b"Mozilla/5.0 (X11; Linux x86_64)"):
        assert assert_same(query.encode(), agent=agent, headers={"address": "192.0.2.1"})


@pytest.mark.parametrize(
    "query",
    [
        "userId=+7&event=e",  # trimmed
        "anonymousId=%22a%22&event=e",  # unquoted
        "userId=&anonymousId=&event=e",  # rejected
        "userId=7&event=+",
        "userId=7",
        "event=e",
        "userId=7&event=e&properties.a=%FF",  # replaced
        "userId=7&event=e&properties.a=%00",  # removed
        "userId=7&event=e&properties.a=0.00001",  # 1e-5
        "userId=7&event=e&sentAt=",
        "userId=7&event=e&sentAt=today",
        "userId=7&event=e&sentAt=2026-02-29T10:15:30Z",
        "userId=7&event=e&sentAt=+2026-11-23T10:15:30Z",
        "userId=7&event=e&sentAt=2026-11-23T10:15%0030Z",
        "userId=7&event=e&timestamp=2026-11-23T10:15:30." + "1" * 40 + "Z",
        "userId=7&event=e&originalTimestamp=179534253012",
        "userId=7&event=e&sentAt=2026-11-23T10:15:30Z&sentAt=2026-11-23T10:15:30Z",
        "userId=7&event=e&messageId=+m",
        "userId=7&event=e&messageId=m%00",
        "userId=7&event=e&messageId=m&messageId=n",
    ],
)
def test_other_queries_are_encoded_by_orjson(query: str) -> None:
    assert not assert_same(query.encode())


def test_a_template_is_made_for_keys_that_repeat() -> None:
    writer = EventWriter()
    found = []
    for n in range(6):
        write(writer, b"userId=7&event=e&properties.a=%d" % n, Rules(), is_track=True)
        found.append(writer.from_templates)
    assert [0, 0, 0, 1, 2, 3] == found


def test_different_keys_are_a_different_shape() -> None:
    """Names, their order and their number matter; values do not."""
    writer = EventWriter()
    first = b"userId=7&event=e&properties.a=1&properties.b=2"
    assert by_template(first, Rules(), writer=writer, is_track=True)[1]
    made = writer.from_templates
    for other in (
        b"userId=7&event=e&properties.b=2&properties.a=1",
        b"userId=7&event=e&properties.a=1&properties.c=2",
        b"userId=7&event=e&properties.a=1",
        b"userId=7&event=e&properties.a=1&properties.b=2&properties.c=3",
        b"userId=7&event=e&properties.a=1&properties.%62=2",
    ):
        write(writer, other, Rules(), is_track=True)
    assert made == writer.from_templates
    write(writer, b"userId=&anonymousId=a&&event=f&properties.a=3&properties.b=x", Rules())
    write(writer, b"&userId=8&event=f&&properties.a=x&properties.b=", Rules(), is_track=True)
    assert made + 1 == writer.from_templates


def test_equal_rules_share_templates_and_others_do_not() -> None:
    writer = EventWriter()
    query = b"userId=7&event=e&properties.a=1&x=true"
    by_template(query, Rules(strings=["properties.a"]), writer=writer, is_track=True)
    made = writer.from_templates
    same = Rules(strings=("properties.a", "properties.a"))
    assert (Rules(strings=["properties.a"]), hash(Rules(strings=["properties.a"]))) == (
        same,
        hash(same),
    )
    write(writer, query, same, is_track=True)
    assert made + 1 == writer.from_templates
    different = [
        Rules(),
        Rules(numbers=False),
        Rules(booleans=True),
        Rules(force_numbers=["properties.a"]),
        Rules(ignore=()),
        Rules(fill=["ip"]),
    ]
    for one in different:
        assert same != one
        assert [one] == [other for other in different if other == one]
        expected = by_orjson(query, one, is_track=True)
        found = write(writer, query, one, is_track=True)
        assert expected is not None
        assert MESSAGE_ID.sub(b"", expected[0]) == MESSAGE_ID.sub(b"", found[0])
    assert Rules() != "rules"


def test_a_caller_may_change_the_returned_warnings() -> None:
    writer = EventWriter()
    query = b"userId=7&event=e&type=x"
    for _ in range(2 * ENOUGH):
        _, warnings = write(writer, query, Rules(), is_track=True)
        assert [("reserved-name", b"type")] == warnings
        warnings.clear()
    assert writer.from_templates > 0


def test_each_source_has_its_own_rules_and_each_route_its_own_template() -> None:
    query = b"userId=7&event=e&name=&properties.a=1&foo=true"
    for kept in ({}, {"numbers": False}, {"strings": ("properties.a",)}, {"ignore": ("foo",)}):
        assert assert_same(query, **kept)
        assert not assert_same(query, is_track=False, **kept)  # an empty name is Unknown Page
        assert assert_same(query.replace(b"name=", b"name=n"), is_track=False, **kept)


def test_shapes_with_many_or_long_keys_are_not_cached() -> None:
    writer = EventWriter()
    many = b"userId=7&event=e" + b"".join(b"&properties.a%d=1" % n for n in range(70))
    long = b"userId=7&event=e&properties." + b"x" * 3000 + b"=1"
    for query in (many, long):
        for _ in range(9):
            write(writer, query, Rules(), is_track=True)
    assert 0 == writer.from_templates


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed"
)
def test_a_flood_of_large_shapes_uses_limited_memory() -> None:
    """Clients choose the keys, so the cache has a limit of 16 MiB, as it counts them."""
    writer, all_rules = EventWriter(), [Rules(ignore=(f"_{n}",)) for n in range(3)]
    all_rules.append(Rules(fill=FILLS))
    before = resident_bytes()
    for n in range(1000):
        keys = b"".join(b"&properties.p%d.q%d.r=%d" % (n, m, m) for m in range(60))
        for own in all_rules:
            for k in range(ENOUGH):
                headers = dict(list(FILLED.items())[: k % 4])
                write(writer, b"userId=7&event=e" + keys, own, is_track=True, **headers)
    assert writer.from_templates > 10_000
    assert resident_bytes() - before < 24 * 2**20


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed"
)
def test_a_flood_of_variants_uses_limited_memory() -> None:
    """Clients choose which headers they send, so a source with fill has 32 templates per shape."""
    writer, own = EventWriter(), Rules(fill=FILLS)
    before = resident_bytes()
    for n in range(400):
        keys = b"".join(b"&properties.p%d.q%d.r=%d" % (n, m, m) for m in range(60))
        for chosen in range(32):
            headers: dict[str, Any] = {"user_agent": b"a"} if chosen & 1 else {}
            headers |= {name: FILLED[name] for i, name in enumerate(FILLED) if chosen & 2 << i}
            is_track = bool(chosen & 16)
            write(writer, b"userId=7&event=e" + keys, own, is_track=is_track, **headers)
    assert writer.from_templates > 10_000
    assert resident_bytes() - before < 24 * 2**20


def test_a_flood_of_shapes_does_not_corrupt_events() -> None:
    own = Rules()
    for n in range(1500):
        assert assert_same(b"userId=7&event=e&properties.p%d=%d" % (n, n))
    for n in range(0, 1500, 100):
        query = b"userId=7&event=e&properties.p%d=%d" % (n, n)
        assert by_template(query, own, is_track=True)[1]


def test_the_longest_values_fit_their_buffer() -> None:
    """Events of over 32,768 bytes are written to the buffer before they are rejected."""
    for value in (b"%22" * 9000, b'"' * 15000, "é".encode() * 15000, b"%C3%A9" * 5000):
        assert assert_same(b"userId=7&event=e&properties.a=" + value)
    assert assert_same(b"userId=7&event=e", agent=b'"' * 15000)
    for size, is_written in ((5000, True), (20000, False)):
        headers = {"address": "x" * size, "languages": b"\t" * 9 + b'"' * size, "referer": b"r"}
        assert is_written == assert_same(b"userId=7&event=e", headers=headers, fill=FILLS)
    quoted = b"%22" * 1000
    assert assert_same(b"userId=7&event=e&messageId=a" + quoted + b"b")
    assert not assert_same(b"userId=7&event=e", agent=b'"' * 30000)
    assert not assert_same(b"userId=7&event=e&properties.a=" + b'"' * 30000)


@pytest.mark.parametrize(
    "special",
    [b'"', b"%22", b"+", b"\\", b"%5c", b"%0a", b"%C3%A9", "é".encode(), b"\x7f", b"~", b" ", b"%"],
)
def test_a_special_byte_is_found_at_any_position(special: bytes) -> None:
    """Values are copied eight bytes at a time."""
    for before in range(18):
        for after in (0, 1, 7, 8, 9):
            value = b"x" * before + special + b"y" * after
            assert assert_same(b"userId=a&event=e&properties.a=" + value + special)
            assert assert_same(b"userId=a&event=e", agent=b"<" + value + b">")


@pytest.mark.parametrize("special", [b"\x00", b"\x1f", b"\x80", b"\xff", b"%00", b"%80"])
def test_a_byte_that_needs_orjson_is_found_at_any_position(special: bytes) -> None:
    for before in range(18):
        for after in (0, 1, 7, 8, 9):
            value = b"x" * before + special + b"y" * after
            assert not assert_same(b"userId=a&event=e&properties.a=" + value)
            if special[:1] != b"%":
                assert not assert_same(b"userId=a&event=e", agent=b"<" + value + b">")


FILLED: dict[str, Any] = {
    "address": "192.0.2.1",
    "referer": b"https://shop.example/cart?a=1&b=%C3%A9",
    "languages": b"de-AT,de;q=0.9,en;q=0.8",
}


@pytest.mark.parametrize("agent", [b"", b"Mozilla/5.0 (X11; Linux x86_64)"])
@pytest.mark.parametrize(
    "more",
    [
        "",
        "&context.screen.width=1920",
        "&context.ip=198.51.100.1&context.locale=fr&context.page.url=u&context.userAgent=a",
        "&context.page.title=t&context.locale=fr",
        "&context.page=flat",
        "&context.page.0=list",
        "&context.ip.a=1&context.locale.0=x&context.page.url.a=1",
    ],
)
def test_sources_with_fill_have_templates(more: str, agent: bytes) -> None:
    """Each combination of missing values has its own."""
    query = f"userId=7&event=e{more}".encode()
    for fill in ({"ip"}, {"referer"}, {"locale"}, FILLS):
        for missing in ((), ("address",), ("referer",), ("languages",), tuple(FILLED)):
            headers = {name: value for name, value in FILLED.items() if name not in missing}
            for is_track in (True, False):
                assert assert_same(
                    query, is_track=is_track, agent=agent, headers=headers, fill=frozenset(fill)
                )


@pytest.mark.parametrize("name", ["ip", "locale", "page", "page.url"])
@pytest.mark.parametrize("blank", ["", "+", "%E2%80%8B"])
def test_a_blank_parameter_that_is_filled_is_left_to_orjson(name: str, blank: str) -> None:
    query = f"userId=7&event=e&context.{name}={blank}".encode()
    assert not assert_same(query, headers=FILLED, fill=FILLS)
    assert assert_same(query, headers={}, fill=FILLS), "nothing to fill in"


@pytest.mark.parametrize(
    ("value", "is_supported"),
    [
        (b'"\\\t' * 900, True),
        ("你好\u2028é".encode() * 200, True),
        (b"%41+%zz&", True),
        (b"a\x01", False),
        (b"a\x80", False),
        (b"a\x00", False),
    ],
)
@pytest.mark.parametrize("name", ["referer", "languages"])
def test_values_that_are_filled_in_are_escaped(name: str, value: bytes, is_supported: bool) -> None:
    value = value.replace(b",", b"")
    assert is_supported == assert_same(b"userId=7&event=e", headers={name: value}, fill=FILLS)


@examples(1000)
@given(st.lists(SEEDS, min_size=3, max_size=3), TIMES_MS, st.booleans())
def test_any_time(seeds: list[int], received_ms: int, is_encoded: bool) -> None:
    times = [time(Random(seed)) for seed in seeds]
    if is_encoded:
        times = [quote(each, safe="") for each in times]
    names = ("originalTimestamp", "sentAt", "timestamp")
    for count in (1, 2, 3):
        for some in itertools.combinations(zip(names, times, strict=True), count):
            query = "&".join(f"{name}={each}" for name, each in some)
            raw = f"userId=7&event=e&{query}".encode()
            assert_same(raw, headers={"received_ms": received_ms})


def test_many_times_are_written_by_templates() -> None:
    """Otherwise the test above would compare orjson with itself."""
    found = [
        assert_same(b"userId=7&event=e&sentAt=" + quote(time(Random(seed)), safe="").encode())
        for seed in range(300)
    ]
    assert found.count(True) > 40


def test_events_without_a_template_are_counted_by_reason() -> None:
    writer = EventWriter()
    for query, count in (
        (b"userId=7&event=e&sentAt=2026-11-23T10:15:30Z", 5),  # two of them from a template
        (b"userId=7&event=e&sentAt=today", 2),
        (b"userId=7&userId=8&event=e", 5),
        (b"userId=7&event=e&type=x", 1),
    ):
        for _ in range(count):
            write(writer, query, Rules(), is_track=True)
    for _ in range(2):
        with pytest.raises(RequestError):
            write(writer, b"userId=&event=e&sentAt=x", Rules(), is_track=True)
    assert 2 == writer.from_templates
    expected = {"new-shape": 3 + 3 + 1, "unsupported-shape": 2, "unsupported-value": 2}
    assert expected == writer.untemplated_events()


def test_most_queries_have_a_template() -> None:
    """Otherwise the tests above would compare orjson with itself."""
    found = {True: 0, False: 0}

    @settings(max_examples=300, database=None)
    @given(targets(), FILL, HEADERS)
    def count(target: str, fill: frozenset[str], headers: dict[str, Any]) -> None:
        path, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
        found[assert_same(query, is_track=b"track" in path, headers=headers, fill=fill)] += 1

    count()
    assert found[True] > 20, found
