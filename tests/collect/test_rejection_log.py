"""Rejected pixels in the log: a sample, without write key, query and full address."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from pixelfast.collect.rejections import RejectionLog
from pixelfast.config import Log, Source, WriteKey, fingerprint
from tests.collect.wire import ask, http
from tests.fakes import DEMO, FakeCollector

SOURCES = (
    DEMO,
    Source(
        name="old", write_keys=(WriteKey(key="wk-old", expires=datetime(2020, 1, 1, tzinfo=UTC)),)
    ),
    Source(name="off", write_keys=(WriteKey(key="wk-off"),), enabled=False),
    Source(name="slow", write_keys=(WriteKey(key="wk-slow"),), rate_limit=1e-12),
)
Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def logged() -> Iterator[Lines]:
    with capture_logs() as lines:
        yield lines


def collector(**settings: Any) -> FakeCollector:
    return FakeCollector(
        SOURCES, rejections=RejectionLog(Log(**settings)), trusted_proxies=("192.0.2.9",)
    )


def page(key: str, more: bytes = b"&userId=u1") -> bytes:
    return b"/pixel/v1/page?writeKey=" + key.encode() + more


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (page("wk-x"), {"reason": "unknown-write-key", "status": 401, "key": "wk-x"}),
        (
            page("wk-old"),
            {"reason": "expired-write-key", "status": 401, "source": "old", "key": "wk-old"},
        ),
        (
            page("wk-off"),
            {"reason": "source-disabled", "status": 404, "source": "off", "key": "wk-off"},
        ),
        (b"/pixel/v1/page?userId=u1", {"reason": "no-write-key", "status": 400}),
        (
            page("wk-demo", b""),
            {"reason": "no-identity", "status": 400, "source": "demo", "key": "wk-demo"},
        ),
        (b"/pixel/v2/page?userId=u1", {"reason": "not-found", "status": 404}),
    ],
)
def test_a_rejected_pixel_is_logged_on_one_line(
    logged: Lines, target: bytes, line: dict[str, Any]
) -> None:
    fake = collector()
    ask(fake, http(target, headers=[b"Referer: https://shop.example/cart?user=7"]))
    expected = {"event": "pixel_rejected", "log_level": "warning", "referrer": "shop.example"}
    expected |= {"address": "192.0.2.0/24"} | line
    if key := expected.pop("key", None):
        expected["key_fingerprint"] = fingerprint(key)
    assert [expected] == logged


def test_an_accepted_pixel_is_not_logged(logged: Lines) -> None:
    ask(collector(), http())
    assert [] == logged


def test_a_rate_limit_a_method_and_a_malformed_request_are_logged(logged: Lines) -> None:
    fake = collector()
    ask(fake, http(page("wk-slow")))
    ask(fake, http(page("wk-slow")))
    ask(fake, http(page("wk-demo"), method=b"DELETE"))
    ask(fake, b"GET /pixel/v1/page?writeKey=wk-demo HTTP/1.1\r\nHost: a b\r\n\r\n")
    found = [(line["reason"], line["status"], line.get("source")) for line in logged]
    assert [("rate-limited", 429, "slow"), ("method-not-allowed", 405, None)] == found[:2]
    assert ("malformed-request", 400, None) == found[2]


def test_a_reason_is_logged_once_per_second_with_the_number_of_suppressed_lines(
    logged: Lines,
) -> None:
    fake = collector()
    for _ in range(5):
        ask(fake, http(page("wk-x")))
    ask(fake, http(page("wk-old")))
    assert ["unknown-write-key", "expired-write-key"] == [line["reason"] for line in logged]
    fake.clock.advance(0.9)
    ask(fake, http(page("wk-x")))
    assert 2 == len(logged)
    fake.clock.advance(0.1)
    ask(fake, http(page("wk-y")))
    assert (3, 5) == (len(logged), logged[2]["suppressed"])
    assert fingerprint("wk-y") == logged[2]["key_fingerprint"]
    fake.clock.advance(1.0)
    ask(fake, http(page("wk-x")))
    assert "suppressed" not in logged[3]


def test_suppressed_rejections_are_logged_although_none_follow(logged: Lines) -> None:
    fake = collector()
    for _ in range(3):
        ask(fake, http(page("wk-x")))
    fake.collector.tick(0.0)
    assert 1 == len(logged)
    fake.clock.advance(2.0)
    fake.collector.tick(0.0)
    fake.collector.tick(0.0)
    rest = {"event": "pixel_rejected", "log_level": "warning", "reason": "unknown-write-key"}
    assert [{**rest, "suppressed": 2}] == logged[1:]


def test_rejections_with_503_are_logged_once_per_minute(logged: Lines) -> None:
    log = RejectionLog(Log())
    for second in range(120):
        if log.is_due("disk-full", float(second)):
            log.write("disk-full", 503)
        log.flush(float(second))
    assert [None, 59] == [line.get("suppressed") for line in logged]
    log.flush(180.0)
    assert [None, 59, 59] == [line.get("suppressed") for line in logged]


def test_the_final_flush_logs_suppressed_rejections(logged: Lines) -> None:
    log = RejectionLog(Log())
    assert log.is_due("method-not-allowed", 100.0)
    assert not log.is_due("method-not-allowed", 100.1)
    log.flush(100.2)
    assert [] == logged
    log.flush(100.2, is_end=True)
    assert [1] == [line["suppressed"] for line in logged]


def test_rejections_are_not_logged_if_the_setting_is_off(logged: Lines) -> None:
    ask(collector(rejections=False), http(page("wk-x")))
    assert [] == logged


@pytest.mark.parametrize(
    ("setting", "address", "shown"),
    [
        ("masked", "203.0.113.77", "203.0.113.0/24"),
        ("masked", "2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("full", "203.0.113.77", "203.0.113.77"),
        ("none", "203.0.113.77", None),
    ],
)
def test_the_address_behind_a_proxy_is_shown_as_the_settings_say(
    logged: Lines, setting: str, address: str, shown: str | None
) -> None:
    fake = collector(addresses=setting)
    headers = [f"X-Forwarded-For: {address}".encode()]
    ask(fake, http(page("wk-x"), headers=headers), peer=("192.0.2.9", 1))
    assert shown == logged[0].get("address")


@pytest.mark.parametrize("peer", ["", "fe80::1%eth0", "not an address"])
def test_an_unusual_address_does_not_fail(logged: Lines, peer: str) -> None:
    log = RejectionLog(Log())
    assert log.is_due("method-not-allowed", 1.0)
    log.write("method-not-allowed", 405, address=peer)
    assert ("fe80::/48" if "fe80" in peer else None) == logged[0].get("address")


@pytest.mark.parametrize(
    ("referrer", "host"),
    [
        (b"https://Shop.Example:8443/a?b=c#d", "shop.example"),
        (b"https://user:pass@shop.example/", "shop.example"),
        (b"https://[2001:db8::1]/", "2001:db8::1"),
        (b"android-app://com.example.mail/", "com.example.mail"),
        (b"writeKey=wk-demo", None),
        (b"https://a b/", None),
        (b"https://\xff/", None),
        (b"https://[::1/", None),
        (b"https://" + b"x" * 300, None),
        (b"", None),
    ],
)
def test_only_the_host_of_a_referrer_is_shown(
    logged: Lines, referrer: bytes, host: str | None
) -> None:
    ask(collector(), http(page("wk-x"), headers=[b"Referer: " + referrer]))
    assert host == logged[0].get("referrer")
