"""Pixels that clients really send, and that cause bugs in the public reports of collectors.

Each is sent to a writer without templates, and often enough to a writer with templates.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from tests.event.writing import NOW_MS

NOW = "2023-11-14T22:13:20.000Z"
BASE = "writeKey=KEY&anonymousId=a1&event=Open"

Outcome = tuple[dict[str, Any], list[tuple[str, str]]] | str


def outcome(writer: EventWriter, target: str | bytes, rules: Rules, agent: bytes) -> Outcome:
    """Return the event with its warnings, or status and reason of the rejection."""
    try:
        writer.open(target.encode() if isinstance(target, str) else target)
        assert writer.write_key() == "KEY"
        encoded, warnings = writer.write(rules, NOW_MS, user_agent=agent)
    except RequestError as error:
        return f"{error.status} {error.reason}"
    return json.loads(encoded), [(reason, key.decode()) for reason, key in warnings]


def sent(target: str | bytes, *, rules: Rules | None = None, agent: bytes = b"") -> Outcome:
    """Return the outcome of a target, which must be the same with and without templates."""
    rules = rules or Rules()
    expected = outcome(EventWriter(uses_templates=False), target, rules, agent)
    writer = EventWriter()
    for _ in range(6):
        found = outcome(writer, target, rules, agent)
        if isinstance(found, tuple) and isinstance(expected, tuple):
            given = expected[0]["messageId"]
            assert given == found[0]["messageId"] or len(given) == 36
            found[0]["messageId"] = given
        assert expected == found
    return expected


def accepted(target: str | bytes, **options: Any) -> dict[str, Any]:
    """Return the event of a target that is accepted without a warning."""
    found = sent(target, **options)
    assert isinstance(found, tuple), found
    assert found[1] == []
    return found[0]


def track(query: str | bytes, **options: Any) -> dict[str, Any]:
    start = b"/pixel/v1/track?"
    return accepted(start + (query.encode() if isinstance(query, str) else query), **options)


def warned(query: str, **options: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    found = sent(f"/pixel/v1/track?{query}", **options)
    assert isinstance(found, tuple), found
    return found


# --- bytes that are not percent-encoded -----------------------------------------------------------


@pytest.mark.parametrize("string", ["каша", "a—b", "你好", "\U0001f600", "é"])
def test_raw_utf_8_has_the_meaning_of_percent_encoded_utf_8(string: str) -> None:
    event = track(f"{BASE}&properties.q={string}&properties.{string}=1&name={string}")
    assert event["properties"] == {"q": string, string: 1}
    assert event["name"] == string
    event = track(f"writeKey=KEY&anonymousId={string}&event={string}")
    assert (event["anonymousId"], event["event"]) == (string, string)


def test_raw_utf_8_is_written_by_a_template() -> None:
    writer = EventWriter()
    for _ in range(4):
        query = f"{BASE}&properties.каша=каша&name=каша&userId=каша"
        writer.open(f"/pixel/v1/track?{query}".encode())
        writer.write(Rules(), NOW_MS)
    assert writer.from_templates == 1


def test_every_raw_byte_is_accepted() -> None:
    for byte in range(0x80, 0x100):
        event = track(BASE.encode() + b"&properties.q=a%cb&properties.%c=1" % (byte, byte))
        assert event["properties"] == {"q": "a\ufffdb", "\ufffd": 1}


# --- HTML-escaped twice ---------------------------------------------------------------------------


def test_the_rest_of_an_html_escaped_ampersand_is_removed() -> None:
    event, warnings = warned(
        "writeKey=KEY&amp;anonymousId=a1&AMP;event=Open&amp;amp;properties.a=1&%20amp;+b=2&amp;_=3"
    )
    assert (event["anonymousId"], event["event"]) == ("a1", "Open")
    assert (event["properties"], event["b"]) == ({"a": 1}, "2")
    keys = ["amp;anonymousId", "AMP;event", "amp;amp;properties.a", "%20amp;+b", "amp;_"]
    assert warnings == [("html-escaped", key) for key in keys]


def test_a_write_key_and_a_wrong_name_may_be_html_escaped() -> None:
    _, warnings = warned("anonymousId=a1&event=Open&amp;writeKey=KEY&amp;type=x")
    assert warnings == [
        ("html-escaped", "amp;writeKey"),
        ("html-escaped", "amp;type"),
        ("reserved-name", "amp;type"),
    ]


def test_a_name_that_only_begins_like_an_escape_is_kept() -> None:
    assert track(f"{BASE}&amp=1&properties.amp;a=2")["amp"] == "1"


# --- blanks and line feeds from templates ---------------------------------------------------------


def test_names_and_identities_are_trimmed() -> None:
    event = track(
        "%20%20writeKey=KEY%0A&%0AanonymousId%0D%0A=+a1%0A&event=%0A+Open+%0A&name=+N%C2%A0"
        "&properties.a%20=+x+&messageId=%20m%20"
    )
    assert (event["anonymousId"], event["event"], event["name"]) == ("a1", "Open", "N")
    assert event["properties"] == {"a": " x "}
    assert event["messageId"] == "m"


def test_the_first_write_key_that_is_not_blank_is_used() -> None:
    track("writeKey=&writeKey=+%0A&writeKey=+KEY&writeKey=other&anonymousId=a1&event=Open")


def test_a_blank_name_is_an_unknown_page() -> None:
    assert accepted("/pixel/v1/page?writeKey=KEY&userId=u&name=+%0A")["name"] == "Unknown Page"
    assert track(f"{BASE}&name=+")["name"] == ""
    assert "400 no-event" == sent("/pixel/v1/track?writeKey=KEY&userId=u&event=%E2%80%8B")


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    "app_version os-version appVersion appversion osversion Version version build BUILD".split(),
)
def test_a_version_is_a_string(name: str) -> None:
    assert track(f"{BASE}&properties.{name}=1.10")["properties"] == {name: "1.10"}


@pytest.mark.parametrize("name", ["conversion", "inversion", "versions", "builds", "app_VERSION"])
def test_a_name_that_only_looks_like_a_version_is_a_number(name: str) -> None:
    assert track(f"{BASE}&properties.{name}=1.10")["properties"] == {name: 1.1}


# --- the first usable value -----------------------------------------------------------------------


def test_the_first_usable_value_of_a_repeated_field_is_used() -> None:
    event = track(
        "writeKey=KEY&userId=&userId=+&userId=42&userId=43&anonymousId=%22%22&anonymousId=a1"
        "&event=&event=Open&name=+&name=N&channel=&channel=+mail&messageId=+&messageId=m"
        "&sentAt=&sentAt=1700000000&sentAt=x"
    )
    assert (event["userId"], event["anonymousId"], event["event"]) == ("42", "a1", "Open")
    assert (event["name"], event["channel"], event["messageId"]) == ("N", " mail", "m")
    assert event["sentAt"] == NOW


def test_a_placeholder_is_replaced_by_a_later_identity() -> None:
    event, warnings = warned("writeKey=KEY&userId=null&event=Open&userId=42&userId=undefined")
    assert event["userId"] == "42"
    assert warnings == [("placeholder", "userId")]


def test_an_invalid_time_is_replaced_by_a_later_valid_one() -> None:
    event, warnings = warned(f"{BASE}&timestamp=now&time%73tamp=+&timestamp=1700000000000")
    assert event["timestamp"] == NOW
    assert warnings == [("invalid-time", "timestamp")]
    event, warnings = warned(f"{BASE}&sentAt=&sentAt=+&time%73tamp=+&timestamp=soon")
    assert (event["timestamp"], event["sentAt"]) == (NOW, NOW)
    assert sorted(warnings) == [("invalid-time", "sentAt"), ("invalid-time", "timestamp")]


# --- values of the server -------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["", "+"])
def test_an_empty_user_agent_is_that_of_the_header(blank: str) -> None:
    event = track(f"{BASE}&context.userAgent={blank}&context.a=1", agent=b"Mozilla/5.0")
    assert event["context"] == {"userAgent": "Mozilla/5.0", "a": 1}


# --- placeholders ---------------------------------------------------------------------------------

PLACEHOLDERS = [
    *"undefined null NULL none None NaN (null) [object%20Object] {{user.id}} x{{a}}y".split(),
    *"{%25%20id%20%25} <%25=id%25> ${id} *|UNIQID|* [[id]] %%DEVICE_ID%% %25%25ID%25%25".split(),
    *"%%=v(@id)=%% CLIENT_ID(rl) QUERY_PARAM(a,b) PAGE_VIEW_ID PAGE_VIEW_ID_64".split(),
    *"SESSION_ID +undefined%0A %7B%7Buser.id%7D%7D {{a%0Ab}}".split(),
]


@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_a_placeholder_identity_is_omitted(value: str) -> None:
    event, warnings = warned(f"{BASE}&userId={value}")
    assert "userId" not in event
    assert warnings == [("placeholder", "userId")]
    event, warnings = warned(f"writeKey=KEY&event=Open&userId=u&anonymousId=%22{value}%22")
    assert "anonymousId" not in event
    assert warnings == [("placeholder", "anonymousId")]
    for name in ("userId", "anonymousId"):
        found = sent(f"/pixel/v1/page?writeKey=KEY&{name}={value}")
        assert found == "400 placeholder-identity"
        target = f"/pixel/v1/page?writeKey=KEY&{name}={value}"
        assert accepted(target, rules=Rules(keeps_placeholders=True))[name]


@pytest.mark.parametrize(
    "value",
    [
        *"nan Nil Undefined null0 nulls nullnull {a} }}a{{ {{} 50% %%1%% %%a% *|*".split(),
        *"*|a [[a] ${a $a} CLIENT_ID CLIENT_ID( xCLIENT_ID(a) client_id(a) PAGE_VIEW_ID_6".split(),
        *"(none) a|b (a) 100%%".split(),
    ],
)
def test_an_identity_that_only_resembles_a_placeholder_is_kept(value: str) -> None:
    assert track(f"writeKey=KEY&event=Open&userId={value}")["userId"] == value


def test_placeholders_are_kept_outside_of_identities() -> None:
    event = track(f"{BASE}&name=undefined&messageId={{{{id}}}}&properties.userId=null")
    assert (event["name"], event["messageId"]) == ("undefined", "{{id}}")
    assert event["properties"] == {"userId": "null"}


def test_a_long_identity_of_unclosed_merge_tags_takes_linear_time() -> None:
    """A regular expression that backtracks would take minutes."""
    for start in ("{{", "%%1", "<%", "*|a", "%%"):
        value = start * (32_000 // len(start))
        assert len(track(f"writeKey=KEY&event=e&userId={value}")["userId"]) > 30_000


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent_as", "expected"),
    [
        ("1700000000000", NOW),
        ("1700000000", NOW),
        ("2026-05-21T09:00:00+02:00", "2026-05-21T07:00:00.000Z"),
        ("2026-05-21T09:00:00%2B02:00", "2026-05-21T09:00:00+02:00"),
        ("2026-01-31t10:00:00z", "2026-01-31T10:00:00.000Z"),
        ("2026-01-31T10:00:00.1234567890123Z", "2026-01-31T10:00:00.123Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999Z"),
        ("2026-01-31T10:00:00.123456789Z", "2026-01-31T10:00:00.123456789Z"),
        ("%0A2026-01-31T10:00:00Z+", "2026-01-31T10:00:00Z"),
    ],
)
@pytest.mark.parametrize("name", ["originalTimestamp", "sentAt", "timestamp"])
def test_all_documented_forms_of_a_time_are_accepted(
    name: str, sent_as: str, expected: str
) -> None:
    assert track(f"{BASE}&{name}={sent_as}")[name] == expected


# --- arrays in PHP's notation ---------------------------------------------------------------------


def test_a_second_value_in_brackets_is_omitted_with_a_warning() -> None:
    event, warnings = warned(f"{BASE}&a[]=1&a%5B%5D=2&properties.b[]=3&properties.b[]=4")
    assert (event["a[]"], event["properties"]) == ("1", {"b[]": 3})
    assert warnings == [
        ("repeated-array-name", "a%5B%5D"),
        ("repeated-array-name", "properties.b[]"),
    ]


@pytest.mark.parametrize(
    "query", ["a[][x]=1&a[][x]=2", "properties.items[].sku=1&properties.items[].sku=2"]
)
def test_brackets_anywhere_in_a_name_warn(query: str) -> None:
    _, warnings = warned(f"{BASE}&{query}")
    assert ["repeated-array-name"] == [reason for reason, _ in warnings]


def test_a_value_in_brackets_that_an_object_displaces_has_one_warning() -> None:
    for query in ("a[]=1&a[]=2&a[].b=3", "a[].b=3&a[]=1&a[]=2", "a[]=1&a[].b=3&a[]=2"):
        _, warnings = warned(f"{BASE}&{query}")
        assert warnings == [("value-conflict", "a[]")] * 2
