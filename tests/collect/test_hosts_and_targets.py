"""Valid and invalid request lines and Host headers, by the scan and the reader, whole and split."""

from __future__ import annotations

import random

import pytest

from tests.collect.test_split_input import outcome_of, split_at
from tests.collect.wire import TO_READER, TRACK, event_of, events, http, read_responses, statuses
from tests.fakes import FakeCollector

LIMIT = 32_768

RAW = {
    "Cyrillic": ("&properties.q=каша".encode(), {"q": "каша"}),
    "a dash": ("&properties.q=a—b".encode(), {"q": "a—b"}),
    "in a name": ("&properties.ключ.é=1".encode(), {"ключ": {"é": 1}}),
    "beside escapes": ("&properties.q=%D0%BBи%D0%BF+ß".encode(), {"q": "лип ß"}),
    "beyond the first plane": ("&properties.q=🛒".encode(), {"q": "🛒"}),
    "not UTF-8": (b"&properties.q=caf\xe9!", {"q": "caf\ufffd!"}),
    "0x80": (b"&properties.q=\x80", {"q": "\ufffd"}),
    "0xFF": (b"&properties.q=\xff", {"q": "\ufffd"}),
    "C1 controls": (b"&properties.q=\xc2\x85\xc2\x9f.", {"q": "\x85\x9f."}),
}


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
@pytest.mark.parametrize("name", RAW)
def test_raw_bytes_have_the_meaning_of_their_escapes(name: str, more: list[bytes]) -> None:
    query, properties = RAW[name]
    escaped = b"".join(b"%%%02X" % c if c >= 0x80 else b"%c" % c for c in query)
    for times in (1, 5):  # a shape that repeats gets a template
        fake = FakeCollector()
        for _ in range(times):
            raw_event = event_of(fake, http(TRACK + query, headers=more))
            assert properties == raw_event["properties"]
            assert properties == event_of(fake, http(TRACK + escaped, headers=more))["properties"]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("prefix", [b"", b"http://pixel.example"])
def test_raw_bytes_are_accepted_in_every_form_of_request(method: bytes, prefix: bytes) -> None:
    target = prefix + TRACK + "&properties.q=каша#ß".encode()
    assert {"q": "каша"} == event_of(FakeCollector(), http(target, method))["properties"]


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
def test_the_limit_of_a_target_counts_the_bytes_as_sent(more: list[bytes]) -> None:
    start = TRACK + b"&_="
    longest = start + b"\xc3\xa9" * ((LIMIT - len(start)) // 2)
    longest += b"x" * (LIMIT - len(longest))
    assert [200] == statuses(FakeCollector().exchange(http(longest, headers=more)))
    assert [414] == statuses(FakeCollector().exchange(http(longest + b"\x80", headers=more)))


HOSTS = [
    b"",
    b"pixel.example",
    b"pixel.example.",
    b"pixel.example:8080",
    b"pixel.example.:8080",
    b"pixel.example:",
    b":8080",
    b"PIXEL_1-a.example",
    b"xn--e1aybc.example",
    b"localhost",
    b"192.0.2.1",
    b"192.0.2.1:80",
    b"[::1]",
    b"[2001:db8::7]:8080",
    b"[::ffff:192.0.2.1]",
    b"\t pixel.example \t",
]
INVALID_HOSTS = [
    b"a b",
    b"a,b",
    b"a/b",
    b"a?b",
    b"a#b",
    b"a@b",
    b"a%41",
    b"http://pixel.example",
    b"pixel.example:80a",
    b"pixel.example:-1",
    b"pixel.example: 80",
    b"pixel.example:80:80",
    b"pixel..example",
    b".example",
    b".",
    b"pixel.example..",
    b"::1",
    b"[::1",
    b"::1]",
    b"[]",
    b"[::1]a",
    b"[::1]]",
    b"[[::1]]",
    b"[::g]",
    b"[192.0.2.1]",
    b"[fe80::1%25eth0]",
    b"[v1.a]",
    b"[" + b"1" * 60 + b"]",
    "é.example".encode(),
    b"\xff",
    b"<script>",
    b"${jndi}",
    b"'",
    b"*",
]


def with_host(host: bytes, more: list[bytes], version: bytes = b"HTTP/1.1") -> bytes:
    return http(headers=more, version=version).replace(b"Host: pixel.example", b"Host:" + host)


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_valid_host_is_accepted(host: bytes, more: list[bytes]) -> None:
    assert [200] == statuses(FakeCollector().exchange(with_host(host, more)))


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_an_invalid_host_is_rejected(host: bytes, more: list[bytes], version: bytes) -> None:
    fake = FakeCollector()
    (response,) = read_responses(fake.exchange(with_host(host, more, version) + http()))
    assert (400, "malformed-request", True) == (response.status, response.reason, response.closes)
    assert [] == events(fake)


def test_a_request_line_without_a_version_gets_400_before_more_arrives() -> None:
    """HTTP/0.9 has no headers, so such a client sends nothing more."""
    for end in (b"\r\n", b"\n", b"\r"):
        assert [400] == statuses(FakeCollector().exchange(b"GET " + TRACK + end))


@pytest.mark.parametrize("size", [33, 70_000])
def test_a_method_that_is_too_long_is_unknown_whole_and_split(size: int) -> None:
    data = b"G" * size + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    whole = outcome_of([data])
    assert [405] == statuses(whole.sent)
    for place in (1, 20, 32, 33, size - 1, size, size + 1):
        assert whole == outcome_of(split_at(data, [place])), place


PIECES = {
    "method": [b"GET", b"GET", b"HEAD", b"POST", b"get", b"G\xc3\x89T", b"", b"PRI", b"SOURCE"],
    "space": [b" ", b" ", b" ", b"  ", b"\t", b"", b" \x0b"],
    "target": [
        TRACK,
        TRACK + "&properties.q=каша".encode(),
        TRACK + b"&properties.q=\x80\xff",
        TRACK + b"&a=\x7f",
        TRACK + b"&a=b c",
        TRACK + b"#\xe9",
        "http://é.example".encode() + TRACK,
        "é".encode(),
        b"*",
        b"",
    ],
    "version": [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"", b"HTTP/1.1 "],
    "end": [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"],
}


def unusual_request(choose: random.Random) -> list[bytes]:
    """Return a request in pieces, a few of them unusual; the last piece is the empty line."""

    def pick(name: str) -> bytes:
        return PIECES[name][0] if choose.random() < 0.7 else choose.choice(PIECES[name])

    first = [pick(name) for name in ("method", "space", "target", "space", "version", "end")]
    host = choose.choice(HOSTS if choose.random() < 0.7 else INVALID_HOSTS)
    return [b"".join(first), b"Host:" + host + b"\r\n", b"\r\n"]


@pytest.mark.parametrize("group", range(20))
def test_scan_and_reader_respond_alike_to_unusual_requests_whole_and_split(group: int) -> None:
    for seed in range(100 * group, 100 * group + 100):
        choose = random.Random(seed)
        first, host, end = unusual_request(choose)
        data = first + host + end + choose.choice([b"", http()])
        whole = outcome_of([data])
        for count in (1, 2, 9):
            places = [choose.randrange(len(data) + 1) for _ in range(count)]
            assert whole == outcome_of(split_at(data, places)), f"seed {seed}"
        # An empty header changes nothing, but leaves the request to the reader.
        if first.endswith(b"\r\n"):
            behind = data[len(first + host) :]
            assert whole == outcome_of([first + host + b"X-Empty:\r\n" + behind]), f"seed {seed}"
