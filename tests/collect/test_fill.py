"""Values that headers add to an event: the user agent, and the source's `fill`."""

from __future__ import annotations

import pytest

from pixelfast.config import Source, WriteKey
from tests.collect.wire import TRACK, ask, event_of, events, http
from tests.fakes import FakeCollector

HEADERS = [
    b"User-Agent: Browser/1.0",
    b"Referer: https://shop.example/cart?x=1",
    b"Accept-Language: de-CH, de;q=0.9, en;q=0.8",
]


def filling(*names: str) -> FakeCollector:
    source = Source(name="demo", write_keys=(WriteKey(key="wk-demo"),), fill=names)  # type: ignore[arg-type]
    return FakeCollector((source,))


@pytest.mark.parametrize(
    ("line", "user_agent"),
    [
        (b"User-Agent: Browser/1.0 (X; Y)", "Browser/1.0 (X; Y)"),
        (b"USER-AGENT:Browser/1.0", "Browser/1.0"),
        (b"user-agent: \t Browser/1.0 \t ", "Browser/1.0"),
        (b"User-Agent: caf\xc3\xa9", "café"),
        (b"User-Agent: caf\xe9!", "caf\ufffd!"),
        (b'User-Agent: "quoted" \\ back', '"quoted" \\ back'),
        (b"User-Agent: " + b"x" * 8_000, "x" * 8_000),
    ],
)
def test_the_user_agent_is_that_of_the_header(line: bytes, user_agent: str) -> None:
    event = event_of(FakeCollector(), http(headers=[line]))
    assert {"userAgent": user_agent} == event["context"]


@pytest.mark.parametrize("lines", [[], [b"User-Agent:"], [b"User-Agent:  \t "], [b"User-Agenf: x"]])
def test_without_a_user_agent_there_is_no_context(lines: list[bytes]) -> None:
    assert "context" not in event_of(FakeCollector(), http(headers=lines))


@pytest.mark.parametrize(
    ("parameter", "context"),
    [
        (b"context.userAgent=Own", {"userAgent": "Own"}),
        (b"context.userAgent=", {"userAgent": "Browser/1.0"}),
        (b"context.userAgent.x=1", {"userAgent": {"x": 1}}),
        (b"context.locale=fr", {"locale": "fr", "userAgent": "Browser/1.0"}),
        (b"context=x", {"userAgent": "Browser/1.0"}),
    ],
)
def test_a_non_empty_parameter_overrides_the_header(
    parameter: bytes, context: dict[str, object]
) -> None:
    event = event_of(FakeCollector(), http(TRACK + b"&" + parameter, headers=HEADERS))
    assert context == event["context"]


def test_the_first_of_two_user_agents_is_used() -> None:
    lines = [b"User-Agent: first", b"User-Agent: second"]
    assert "first" == event_of(FakeCollector(), http(headers=lines))["context"]["userAgent"]


def test_a_user_agent_is_used_only_for_its_request() -> None:
    fake = FakeCollector()
    fake.exchange(http(headers=[b"User-Agent: one"]) + http() + http(headers=[b"User-Agent: two"]))
    found = [event.get("context") for event in events(fake)]
    assert [{"userAgent": "one"}, None, {"userAgent": "two"}] == found


def test_an_event_that_the_user_agent_makes_too_large_is_rejected() -> None:
    target = TRACK + b"&properties.a=" + b"x" * 20_000
    response = ask(FakeCollector(), http(target, headers=[b"User-Agent: " + b"y" * 15_000]))
    assert (413, "event-too-large") == (response.status, response.reason)


def test_only_the_user_agent_is_filled_in_by_default() -> None:
    event = event_of(FakeCollector(), http(headers=HEADERS))
    assert {"userAgent": "Browser/1.0"} == event["context"]


def test_a_source_can_fill_in_address_page_and_locale() -> None:
    event = event_of(filling("ip", "referer", "locale"), http(headers=HEADERS))
    assert {
        "userAgent": "Browser/1.0",
        "ip": "192.0.2.1",
        "locale": "de-CH",
        "page": {"url": "https://shop.example/cart?x=1"},
    } == event["context"]


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("ip", {"ip": "192.0.2.1"}),
        ("referer", {"page": {"url": "https://shop.example/cart?x=1"}}),
        ("locale", {"locale": "de-CH"}),
    ],
)
def test_only_the_values_that_a_source_configures_are_filled_in(
    name: str, context: dict[str, object]
) -> None:
    event = event_of(filling(name), http(headers=HEADERS))
    assert context | {"userAgent": "Browser/1.0"} == event["context"]


def test_parameters_override_fill() -> None:
    target = (
        TRACK + b"&context.ip=1.2.3.4&context.locale=de&context.page.url=u&context.page.title=t"
    )
    event = event_of(filling("ip", "referer", "locale"), http(target, headers=HEADERS))
    assert {
        "userAgent": "Browser/1.0",
        "ip": "1.2.3.4",
        "locale": "de",
        "page": {"url": "u", "title": "t"},
    } == event["context"]


def test_empty_parameters_do_not_override_fill() -> None:
    target = TRACK + b"&context.ip=&context.locale=&context.page.url=&channel="
    event = event_of(filling("ip", "referer", "locale"), http(target, headers=HEADERS))
    assert {
        "userAgent": "Browser/1.0",
        "ip": "192.0.2.1",
        "locale": "de-CH",
        "page": {"url": "https://shop.example/cart?x=1"},
    } == event["context"]
    assert "web" == event["channel"]


def test_an_existing_page_gets_the_missing_url() -> None:
    event = event_of(filling("referer"), http(TRACK + b"&context.page.title=t", headers=HEADERS))
    expected = {"title": "t", "url": "https://shop.example/cart?x=1"}
    assert expected == event["context"]["page"]


@pytest.mark.parametrize("parameter", [b"context.page=x", b"context.page.0=x"])
def test_a_page_that_is_not_an_object_is_kept(parameter: bytes) -> None:
    event = event_of(filling("referer"), http(TRACK + b"&" + parameter, headers=HEADERS))
    assert ("x" if parameter.endswith(b"page=x") else ["x"]) == event["context"]["page"]


@pytest.mark.parametrize(
    ("line", "locale"),
    [
        (b"Accept-Language: en", "en"),
        (b"Accept-Language: , *;q=0.1,, de", "de"),
        (b"Accept-Language:\r\nAccept-Language: fr", "fr"),
        (b"Accept-Language:   en-GB ;q=0.5", "en-GB"),
        (b"accept-language: fr-FR,en;q=0.1", "fr-FR"),
    ],
)
def test_the_locale_is_the_first_language(line: bytes, locale: str) -> None:
    assert {"locale": locale} == event_of(filling("locale"), http(headers=[line]))["context"]


@pytest.mark.parametrize("line", [b"Accept-Language:", b"Accept-Language: ;q=1", b"Referer:"])
def test_empty_headers_fill_in_nothing(line: bytes) -> None:
    assert "context" not in event_of(filling("referer", "locale"), http(headers=[line]))


def test_the_filled_in_address_is_that_of_the_client_behind_a_proxy() -> None:
    source = Source(name="demo", write_keys=(WriteKey(key="wk-demo"),), fill=("ip",))
    fake = FakeCollector((source,), trusted_proxies=["10.0.0.0/8"])
    request = http(headers=[b"X-Forwarded-For: 203.0.113.7"])
    event = event_of(fake, request, peer=("10.0.0.1", 1))
    assert ("203.0.113.7", "203.0.113.7") == (event["request_ip"], event["context"]["ip"])


def test_an_unknown_address_is_not_filled_in() -> None:
    assert "context" not in event_of(filling("ip"), http(), peer="")


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    fake = filling("referer", "locale")
    lines = [b"Referer: https://x.example/\xff", b"Accept-Language: d\xe9"]
    assert {"page": {"url": "https://x.example/\ufffd"}, "locale": "d\ufffd"} == event_of(
        fake, http(headers=lines)
    )["context"]
