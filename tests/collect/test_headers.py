"""The table of headers: scan and reader keep the same headers, and handle duplicates by rules."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pixelfast.config import Source, WriteKey
from tests.collect.wire import TO_READER, TRACK, events, http, read_responses
from tests.fakes import FakeCollector

# A header that only the reader accepts, and that changes nothing but the response.
HEADERS = {
    "User-Agent": b"uSER-aGENT: Agent/1.0",
    "Accept-Language": b"accept-language: de-AT,de;q=0.5",
    "Referer": b"REFERER: https://example.com/page",
    "Origin": b"Origin: https://shop.example",
    "X-Real-IP": b"x-real-ip: 198.51.100.7",
    "X-Forwarded-For": b"X-FORWARDED-FOR: 203.0.113.9, 192.0.2.7",
    "X-Request-ID": b"x-request-ID: 5f0c2a",
}
SETTINGS = Source(
    name="demo", write_keys=(WriteKey(key="wk-demo"),), fill=("ip", "referer", "locale")
)


def outcome(headers: list[bytes], *, is_proxied: bool = True) -> tuple[dict[str, Any], str | None]:
    """Return the event of a request and the echoed origin.

    Of a generated message id only the time is kept.
    """
    trusted = ["192.0.2.0/24"] if is_proxied else []
    fake = FakeCollector([SETTINGS], trusted_proxies=trusted, message_id_header="X-Request-ID")
    (response,) = read_responses(fake.exchange(http(TRACK, headers=headers)))
    (event,) = events(fake)
    if len(event["messageId"]) == 36:
        event["messageId"] = event["messageId"][:13]  # the time of a UUIDv7
    return event, response.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("is_proxied", [True, False])
@pytest.mark.parametrize("count", range(len(HEADERS) + 1))
def test_scan_and_reader_keep_the_same_headers(count: int, is_proxied: bool) -> None:
    for names in itertools.combinations(HEADERS, count):
        headers = [HEADERS[name] for name in names]
        by_scan = outcome(headers, is_proxied=is_proxied)
        assert by_scan == outcome([*headers, TO_READER], is_proxied=is_proxied), names


def test_each_header_is_in_the_event() -> None:
    """Otherwise the test above could not fail."""
    event, origin = outcome(list(HEADERS.values()))
    assert ("203.0.113.9", "https://shop.example") == (event["request_ip"], origin)
    assert "5f0c2a" == event["messageId"]
    assert "5f0c2a" != outcome(list(HEADERS.values()), is_proxied=False)[0]["messageId"]
    context = event["context"]
    assert ("Agent/1.0", "203.0.113.9") == (context["userAgent"], context["ip"])
    assert ("https://example.com/page", "de-AT") == (context["page"]["url"], context["locale"])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (b"User-Agent: a", b"User-Agent: b", [b"User-Agent: a"]),
        (b"Accept-Language: de", b"Accept-Language: fr", [b"Accept-Language: de"]),
        (b"Referer: https://a.example", b"Referer: b", [b"Referer: https://a.example"]),
        (b"Origin: https://a.example", b"Origin: b", [b"Origin: b"]),
        (b"X-Real-IP: 198.51.100.1", b"X-Real-IP: 198.51.100.2", [b"X-Real-IP: 198.51.100.2"]),
        (b"X-Request-ID: a", b"X-Request-ID: b", [b"X-Request-ID: b"]),
        (b"X-Request-ID: a", b"X-Request-ID:", [b"X-Request-ID: a"]),
        (b"X-Request-ID: \t", b"X-Request-ID: b", [b"X-Request-ID: b"]),
        (
            b"X-Forwarded-For: 203.0.113.9",
            b"X-Forwarded-For: 192.0.2.7",
            [b"X-Forwarded-For: 203.0.113.9,192.0.2.7"],
        ),
    ],
    ids=[
        *("user-agent", "accept-language", "referer", "origin", "x-real-ip"),
        *("x-request-id", "x-request-id-and-blank", "blank-and-x-request-id", "x-forwarded-for"),
    ],
)
@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
def test_a_duplicated_header_is_handled_as_the_table_says(
    first: bytes, second: bytes, expected: list[bytes], more: list[bytes]
) -> None:
    assert outcome(expected) == outcome([first, second, *more])
