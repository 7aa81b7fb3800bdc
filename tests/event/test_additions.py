"""The values that the server adds to an event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pixelfast.event import EventWriter, Rules
from tests.event.writing import write, written

NOW_MS = 1_795_342_530_123


def utc(milliseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


NOW = utc(NOW_MS)


def completed(query: str, **additions: Any) -> tuple[dict[str, Any], list[str]]:
    return written(query, received_ms=NOW_MS, **additions)


def test_all_additions_of_a_plain_event() -> None:
    event, warnings = completed("name=Home", address="203.0.113.7", user_agent=b"agent")
    message_id = event.pop("messageId")
    assert message_id[14] == "7"
    assert warnings == []
    assert event == {
        "type": "page",
        "userId": "u",
        "name": "Home",
        "context": {"userAgent": "agent"},
        "channel": "web",
        "integrations": {"All": True},
        "receivedAt": NOW,
        "originalTimestamp": NOW,
        "sentAt": NOW,
        "timestamp": NOW,
        "request_ip": "203.0.113.7",
    }


def test_the_keys_of_an_event_have_the_documented_order() -> None:
    query = "foo=1&context.a=1&traits.b=1&properties.c=1&name=N&event=E&anonymousId=A"
    event, _ = completed(query)
    first = "type anonymousId userId event name properties context foo traits".split()
    assert first == list(event)[: len(first)]


@pytest.mark.parametrize(
    ("query", "message_id"),
    [("messageId=m-1", "m-1"), ("messageId=%20m-1%E2%80%8B", "m-1"), ("messageId=a b", "a b")],
)
def test_a_message_id_is_trimmed(query: str, message_id: str) -> None:
    assert message_id == completed(query)[0]["messageId"]


@pytest.mark.parametrize("query", ["messageId=", "messageId=%20%EF%BB%BF"])
def test_an_empty_message_id_is_replaced_by_a_new_one(query: str) -> None:
    assert len(completed(query)[0]["messageId"]) == 36


@pytest.mark.parametrize(("query", "channel"), [("channel=email", "email"), ("a=1", "web")])
def test_the_channel_is_the_parameter_or_web(query: str, channel: str) -> None:
    assert channel == completed(query)[0]["channel"]


def test_the_timestamp_corrects_the_clock_of_the_client() -> None:
    event, warnings = completed(
        "originalTimestamp=2020-01-01T00:00:00.000Z&sentAt=2020-01-01T00:00:05.500Z"
    )
    assert event["originalTimestamp"] == "2020-01-01T00:00:00.000Z"
    assert event["sentAt"] == "2020-01-01T00:00:05.500Z"
    assert utc(NOW_MS - 5500) == event["timestamp"]
    assert warnings == []


def test_a_single_client_time_is_compared_with_the_server_clock() -> None:
    event, _ = completed(f"originalTimestamp={utc(NOW_MS - 90_000)}")
    assert utc(NOW_MS - 90_000) == event["timestamp"]
    assert event["sentAt"] == NOW


def test_a_given_timestamp_is_kept_as_sent() -> None:
    event, _ = completed("timestamp=2020-01-01T00:00:00%2B01:00&sentAt=2020-01-01T00:00:00Z")
    assert event["timestamp"] == "2020-01-01T00:00:00+01:00"


@pytest.mark.parametrize("name", ["originalTimestamp", "sentAt", "timestamp"])
@pytest.mark.parametrize("value", ["", "yesterday", "2026-11-23", "2026-11-23T10:15:30 1:00"])
def test_an_invalid_time_is_omitted_with_a_warning(name: str, value: str) -> None:
    event, warnings = completed(f"{name}={value}")
    assert event[name] == NOW
    assert warnings == ["invalid-time"]


@pytest.mark.parametrize(
    "query",
    [
        "originalTimestamp=0000-01-01T00:00:00Z&sentAt=9999-12-31T23:59:59Z",
        "originalTimestamp=9999-12-31T23:59:59Z&sentAt=0000-01-01T00:00:00Z",
    ],
)
def test_extreme_times_give_a_timestamp_with_a_year_of_four_digits(query: str) -> None:
    assert len(completed(query)[0]["timestamp"]) == 24


def test_the_user_agent_in_the_query_has_precedence_over_the_header() -> None:
    event, _ = completed("context.userAgent=mine", user_agent=b"header")
    assert event["context"] == {"userAgent": "mine"}
    event, _ = completed("context.userAgent=", user_agent=b"")
    assert event["context"] == {"userAgent": ""}


@pytest.mark.parametrize("blank", ["", "+", "%E2%80%8B"])
def test_a_blank_parameter_does_not_override_a_value_of_the_server(blank: str) -> None:
    writer, plain = EventWriter(), Rules()
    for _ in range(9):
        query = f"userId=u&context.userAgent={blank}&channel={blank}".encode()
        event = json.loads(write(writer, query, plain, user_agent=b"header")[0])
        assert (event["context"], event["channel"]) == ({"userAgent": "header"}, "web")
    event, warnings = completed(
        f"context.ip={blank}&context.locale={blank}&context.page={blank}",
        rules=Rules(fill=("ip", "locale", "referer")),
        address="192.0.2.1",
        languages=b"de",
        referer=b"https://example.com/",
    )
    page = {"url": "https://example.com/"}
    assert event["context"] == {"ip": "192.0.2.1", "locale": "de", "page": page}
    assert warnings == []
    event, _ = completed(
        f"context.page.url={blank}", rules=Rules(fill=("referer",)), referer=b"https://example.com/"
    )
    assert event["context"] == {"page": page}


def test_a_number_as_the_user_agent_is_kept() -> None:
    own = Rules(force_numbers=("context.userAgent",))
    writer = EventWriter()
    for _ in range(9):
        query = b"userId=u&context.userAgent=7"
        event = json.loads(write(writer, query, own, user_agent=b"header")[0])
        assert event["context"] == {"userAgent": 7}
    assert writer.from_templates > 0


def test_without_an_address_there_is_no_request_ip() -> None:
    assert "request_ip" not in completed("a=1", address="")[0]


def test_fill_sets_only_missing_values() -> None:
    rules = Rules(fill=("ip", "referer", "locale"))
    headers = {"referer": b"https://example.com/", "languages": b"de-DE"}
    event, _ = completed("a=1", rules=rules, address="203.0.113.7", **headers)
    assert event["context"] == {
        "ip": "203.0.113.7",
        "locale": "de-DE",
        "page": {"url": "https://example.com/"},
    }
    event, _ = completed(
        "context.ip=x&context.locale=y&context.page.url=z&context.page.path=p",
        rules=rules,
        address="203.0.113.7",
        **headers,
    )
    assert event["context"] == {"ip": "x", "locale": "y", "page": {"url": "z", "path": "p"}}


@pytest.mark.parametrize(
    ("fill", "context"),
    [
        ("ip", {"ip": "203.0.113.7"}),
        ("referer", {"page": {"url": "https://example.com/"}}),
        ("locale", {"locale": "de-DE"}),
    ],
)
def test_each_fill_rule_sets_its_own_value(fill: str, context: dict[str, object]) -> None:
    event, _ = completed(
        "a=1",
        rules=Rules(fill=(fill,)),
        address="203.0.113.7",
        referer=b"https://example.com/",
        languages=b" de-DE ;q=0.9, en",
    )
    assert context == event["context"]


@pytest.mark.parametrize("query", ["context.page=flat", "context.page.0=list"])
def test_fill_does_not_change_a_page_that_is_not_an_object(query: str) -> None:
    rules = Rules(fill=("referer",))
    event, _ = completed(query, rules=rules, referer=b"https://example.com/")
    assert event["context"]["page"] in ("flat", ["list"])


def test_fill_without_values_adds_no_context() -> None:
    rules = Rules(fill=("ip", "referer", "locale"))
    assert "context" not in completed("a=1", rules=rules, languages=b"", referer=b"")[0]
    assert "context" not in completed("a=1", rules=rules)[0]


def test_a_repeated_event_with_fill_gets_the_current_address() -> None:
    writer, rules = EventWriter(), Rules(fill=("ip",))
    for n in range(9):
        address = f"192.0.2.{n}"
        encoded, _ = write(writer, b"userId=u&a=1", rules, address=address)
        assert {"ip": address} == json.loads(encoded)["context"]
    assert writer.from_templates > 0


def test_white_space_around_the_user_agent_is_removed() -> None:
    writer = EventWriter()
    for _ in range(9):  # written by orjson first, then by the template
        for agent, expected in (
            (b" \t a b\r\n", {"userAgent": "a b"}),
            (b"\v\f", None),
        ):
            encoded, _ = write(writer, b"userId=u&x=1", Rules(), user_agent=agent)
            assert expected == json.loads(encoded).get("context")
    assert writer.from_templates > 0


def test_the_json_is_one_line_of_utf_8() -> None:
    query = b"writeKey=k&userId=u&properties.a=%0A%E4%BD%A0%E2%80%A8"
    encoded, _ = write(EventWriter(), query, Rules(), received_ms=NOW_MS)
    assert b"\n" not in encoded
    assert json.loads(encoded)["properties"]["a"] == "\n你\u2028"
