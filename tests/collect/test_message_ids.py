"""The messageId from a header of a trusted proxy, by the scan and the reader."""

from __future__ import annotations

import uuid

import pytest

from tests.collect.wire import PAGE, TO_READER, TRACK, event_of, http
from tests.fakes import FakeCollector

PROXY = ("192.0.2.1", 40000)
ID = "5d41402abc4b2a76b9719d911017c592"
both_ways = pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])


def collector(name: str = "X-Request-ID", trusted: tuple[str, ...] = (PROXY[0],)) -> FakeCollector:
    return FakeCollector(trusted_proxies=trusted, message_id_header=name)


def is_made(message_id: str) -> bool:
    return message_id.count("-") == 4 and uuid.UUID(message_id).version == 7


@both_ways
def test_the_header_becomes_the_message_id_of_an_event_that_has_none(more: list[bytes]) -> None:
    fake = collector()
    for n in range(9):  # written by orjson first, then by a template
        lines = [b"x-request-id: %s-%d" % (ID.encode(), n), *more]
        assert f"{ID}-{n}" == event_of(fake, http(headers=lines), peer=PROXY)["messageId"]


@both_ways
def test_the_parameter_messageid_has_precedence_over_the_header(more: list[bytes]) -> None:
    fake = collector()
    lines = [b"X-Request-ID: " + ID.encode(), *more]
    for query, expected in ((b"own", "own"), (b"", ID), (b"%20%E2%80%8B", ID)):
        request = http(TRACK + b"&messageId=" + query, headers=lines)
        assert expected == event_of(fake, request, peer=PROXY)["messageId"]


@both_ways
def test_the_header_is_used_only_from_a_trusted_proxy(more: list[bytes]) -> None:
    lines = [b"X-Request-ID: " + ID.encode(), *more]
    untrusted = event_of(collector(), http(headers=lines), peer=("198.51.100.9", 1))
    assert is_made(untrusted["messageId"])
    assert is_made(event_of(collector(), http(headers=lines), peer="")["messageId"])
    over_unix = event_of(collector(trusted=("unix:",)), http(headers=lines), peer="")
    assert ID == over_unix["messageId"]


@both_ways
def test_without_the_setting_no_header_is_used(more: list[bytes]) -> None:
    lines = [b"X-Request-ID: " + ID.encode(), b"Message-ID: x", *more]
    assert is_made(event_of(collector(""), http(headers=lines), peer=PROXY)["messageId"])


@both_ways
@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"a" * 128,
        b"Root=1-67891233-abcdef;x/y+z,w",
        b"0-0~!#$%&'()*:<>?@[]^_`{|}",
        b" \tab\t ",
    ],
)
def test_a_value_of_up_to_128_visible_characters_is_accepted(
    value: bytes, more: list[bytes]
) -> None:
    fake = collector()
    event = event_of(fake, http(headers=[b"X-Request-ID: " + value, *more]), peer=PROXY)
    assert value.strip().decode() == event["messageId"]
    assert {} == fake.collector.sources.all[0].warned


@both_ways
@pytest.mark.parametrize(
    "value", [b"a" * 129, b"a b", b'a"b', b"a\\b", b"caf\xc3\xa9", b"\xff", b"a\tb"]
)
def test_an_invalid_value_is_ignored_with_a_warning(value: bytes, more: list[bytes]) -> None:
    fake = collector()
    for _ in range(9):
        event = event_of(fake, http(headers=[b"X-Request-ID: " + value, *more]), peer=PROXY)
        assert is_made(event["messageId"])
    assert {"invalid-message-id": 9} == fake.collector.sources.all[0].warned


@both_ways
def test_a_blank_value_is_ignored(more: list[bytes]) -> None:
    fake = collector()
    for line in (b"X-Request-ID:", b"X-Request-ID: \t"):
        assert is_made(event_of(fake, http(headers=[line, *more]), peer=PROXY)["messageId"])
    assert {} == fake.collector.sources.all[0].warned


@both_ways
def test_each_request_of_a_connection_has_its_own_id(more: list[bytes]) -> None:
    fake = collector()
    ids = [[b"X-Request-ID: id-%d" % n] if n % 3 else [] for n in range(12)]
    fake.exchange(b"".join(http(PAGE, headers=[*line, *more]) for line in ids), peer=PROXY)
    found = [event.split(b'"messageId":"')[1].split(b'"')[0] for _, event in fake.disk.events()]
    assert 12 == len(found)
    for n, message_id in enumerate(found):
        assert b"id-%d" % n == message_id if n % 3 else is_made(message_id.decode())


def test_a_trailer_does_not_set_the_message_id() -> None:
    body = b"0\r\nX-Request-ID: forged\r\n\r\n"
    request = http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], body)
    assert is_made(event_of(collector(), request, peer=PROXY)["messageId"])
