"""The bytes of responses: the GIF, headers, CORS, the date and always_200."""

from __future__ import annotations

import errno

import pytest

from pixelfast.config import Source, WriteKey
from tests.collect.wire import (
    CORS_HEADERS,
    GIF,
    ORIGIN,
    PIXEL_HEADERS,
    TRACK,
    ask,
    fail_commit,
    http,
    read_responses,
)
from tests.fakes import DEMO, FakeCollector

DATE = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
OFF = Source(name="off", write_keys=(WriteKey(key="wk-off"),), enabled=False)
ORIGIN_LINE = b"Origin: " + ORIGIN


def make_collector(**options: object) -> FakeCollector:
    fake = FakeCollector((DEMO, OFF), **options)  # type: ignore[arg-type]
    fake.collector.tick(1_700_000_000)
    return fake


# Pixel requests that are rejected before they are stored: request, status, reason, more headers.
REJECTED = {
    "no key": (http(b"/pixel/v1/track"), 400, "no-write-key", {}),
    "unknown key": (http(TRACK.replace(b"demo", b"who")), 401, "unknown-write-key", {}),
    "disabled": (http(TRACK.replace(b"demo", b"off")), 404, "source-disabled", {}),
    "method": (
        http(TRACK, b"PUT"),
        405,
        "method-not-allowed",
        {"Allow": "GET, HEAD, POST, OPTIONS"},
    ),
    "event": (http(TRACK + b"&properties.a=" + b'"' * 20_000), 413, "event-too-large", {}),
}


def with_origin(request: bytes) -> bytes:
    """Return the request with an Origin header before all others."""
    line, _, rest = request.partition(b"\r\n")
    return b"%b\r\n%b\r\n%b" % (line, ORIGIN_LINE, rest)


def test_the_gif_is_the_documented_one() -> None:
    assert 43 == len(GIF)
    fake = make_collector()
    assert fake.exchange(http()).endswith(b"\r\n\r\n" + GIF)


def test_a_pixel_has_exactly_these_headers() -> None:
    response = ask(make_collector(), http())
    assert (200, PIXEL_HEADERS | DATE, GIF) == response


def test_a_pixel_with_an_origin_has_the_cors_headers_beside() -> None:
    response = ask(make_collector(), http(headers=[ORIGIN_LINE]))
    assert (200, PIXEL_HEADERS | DATE | CORS_HEADERS, GIF) == response


@pytest.mark.parametrize("origin", [b"null", b"https://xn--bcher-kva.example:8443", b"app://x"])
def test_the_origin_is_echoed_unchanged(origin: bytes) -> None:
    response = ask(make_collector(), http(headers=[b"oRIGIN: " + origin]))
    assert origin.decode() == response.headers["Access-Control-Allow-Origin"]


def test_an_origin_is_echoed_only_for_its_request() -> None:
    fake = make_collector()
    sent = fake.exchange(http(headers=[ORIGIN_LINE]) + http() + http(b"/pixel/v1/track"))
    first, second, third = read_responses(sent)
    assert CORS_HEADERS.items() <= first.headers.items()
    assert not CORS_HEADERS.keys() & second.headers.keys()
    assert not CORS_HEADERS.keys() & third.headers.keys()


@pytest.mark.parametrize("name", REJECTED)
def test_a_rejection_has_the_same_gif_with_its_status_and_reason(name: str) -> None:
    request, status, reason, more = REJECTED[name]
    response = ask(make_collector(), request)
    expected = PIXEL_HEADERS | DATE | {"X-Pixelfast-Error": reason} | more
    assert (status, expected, GIF) == response


@pytest.mark.parametrize("name", REJECTED)
def test_a_rejection_with_an_origin_has_the_cors_headers(name: str) -> None:
    request, status, reason, more = REJECTED[name]
    response = ask(make_collector(), with_origin(request))
    expected = PIXEL_HEADERS | DATE | CORS_HEADERS | {"X-Pixelfast-Error": reason} | more
    assert (status, expected, GIF) == response


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http(TRACK, b"POST", [b"Content-Length: 70000"], b"x" * 70_000), 413),
        (http(headers=[b"X-%d: y" % number for number in range(120)]), 431),
        (http(headers=[b"X: " + b"y" * 40_000]), 431),
    ],
    ids=["body", "headers", "header-bytes"],
)
def test_a_request_that_exceeds_a_limit_has_the_cors_headers_too(
    request_: bytes, status: int
) -> None:
    """A script can read the status of its `fetch` only with these headers."""
    response = ask(make_collector(), with_origin(request_))
    assert status == response.status
    assert (PIXEL_HEADERS | CORS_HEADERS).items() <= response.headers.items()


UNREAD = {
    "target-too-long": http(TRACK + b"&_=" + b"x" * 32_768, headers=[ORIGIN_LINE]),
    "malformed-request": http(TRACK + b" x", headers=[ORIGIN_LINE]),
    "method-not-allowed": http(TRACK, b"BREW", [ORIGIN_LINE]),
    "too-many-headers": http(headers=[*[b"X: y"] * 120, ORIGIN_LINE]),
    "headers-too-large": http(headers=[b"X: " + b"y" * 70_000, ORIGIN_LINE]),
}


@pytest.mark.parametrize("reason", UNREAD)
def test_a_request_that_is_rejected_before_its_origin_is_read_allows_any(reason: str) -> None:
    """The header may not have arrived, and a response must not depend on how TCP splits it."""
    response = ask(make_collector(), UNREAD[reason])
    assert (reason, "*") == (response.reason, response.headers["Access-Control-Allow-Origin"])
    assert "Access-Control-Allow-Credentials" not in response.headers  # not allowed with `*`


def test_a_request_that_times_out_in_its_head_allows_any_origin() -> None:
    fake = make_collector()
    connection, transport = fake.connect()
    connection.data_received(http(headers=[ORIGIN_LINE])[:-2])
    fake.clock.advance(11.0)
    fake.connections.sweep()
    (response,) = read_responses(transport.sent)
    assert (408, "*") == (response.status, response.headers["Access-Control-Allow-Origin"])


@pytest.mark.parametrize(
    "request_",
    [
        http(TRACK, b"POST", [b"Content-Length: 70000"], b"x" * 70_000),
        http(TRACK, b"POST", [b"Transfer-Encoding: chunked"], b"x\r\n"),
        http(b"/pixel/v1/track"),
    ],
    ids=["body", "chunk", "query"],
)
def test_a_request_without_an_origin_is_rejected_without_cors_headers(request_: bytes) -> None:
    response = ask(make_collector(), request_)
    assert response.status in {400, 413}
    assert not CORS_HEADERS.keys() & response.headers.keys()


@pytest.mark.parametrize("headers", [[], [ORIGIN_LINE]], ids=["plain", "cors"])
def test_an_event_that_is_not_stored_gets_503(headers: list[bytes]) -> None:
    fake = make_collector()
    connection, transport = fake.connect()
    connection.data_received(http(headers=headers))
    fake.loop.turn()
    fail_commit(fake, errno.EIO)
    (response,) = read_responses(transport.sent)
    expected = (
        PIXEL_HEADERS
        | DATE
        | (CORS_HEADERS if headers else {})
        | {"X-Pixelfast-Error": "not-stored", "Retry-After": "1"}
    )
    assert (503, expected, GIF) == response


def test_options_has_the_headers_of_a_preflight() -> None:
    response = ask(
        make_collector(),
        http(TRACK, b"OPTIONS", [ORIGIN_LINE, b"Access-Control-Request-Method: POST"]),
    )
    assert 204 == response.status
    assert CORS_HEADERS.items() <= response.headers.items()
    assert {"GET", "HEAD", "POST"} <= set(
        response.headers["Access-Control-Allow-Methods"].split(", ")
    )


def test_options_without_an_origin_allows_any() -> None:
    response = ask(make_collector(), http(TRACK, b"OPTIONS"))
    assert "*" == response.headers["Access-Control-Allow-Origin"]
    assert "Access-Control-Allow-Credentials" not in response.headers  # not allowed with `*`


def test_other_paths_have_no_cors_headers() -> None:
    fake = make_collector()
    for target in (b"/", b"/robots.txt"):
        response = ask(fake, http(target, headers=[ORIGIN_LINE]))
        assert not CORS_HEADERS.keys() & response.headers.keys()


def test_the_date_changes_with_the_tick_and_only_with_it() -> None:
    fake = make_collector()
    fake.clock.advance(5.0)
    dates = [ask(fake, request).headers["Date"] for request in (http(), http(b"/"))]
    fake.collector.tick(1_700_000_001.5)
    dates += [ask(fake, request).headers["Date"] for request in (http(), http(b"/"))]
    dates.append(ask(fake, http(headers=[ORIGIN_LINE])).headers["Date"])
    dates.append(ask(fake, http(b"/pixel/v1/track")).headers["Date"])
    dates.append(ask(fake, http(TRACK, b"OPTIONS")).headers["Date"])
    before, after = "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"
    assert [before] * 2 + [after] * 5 == dates


@pytest.mark.parametrize("name", [name for name in REJECTED if name != "method"])
def test_always_200_hides_every_rejection_of_a_pixel(name: str) -> None:
    request, _, reason, _ = REJECTED[name]
    fake = make_collector(always_200=True)
    response = ask(fake, request)
    assert (200, GIF) == (response.status, response.body)
    assert PIXEL_HEADERS.items() <= response.headers.items()
    counts = [
        source.rejected for source in (*fake.collector.sources.all, fake.collector.sources.unknown)
    ]
    assert {reason: 1} in counts
    assert [] == fake.disk.events()


def test_always_200_hides_an_event_that_was_not_stored() -> None:
    fake = make_collector(always_200=True)
    connection, transport = fake.connect()
    connection.data_received(http())
    fake.loop.turn()
    fail_commit(fake, errno.EIO)
    connection.data_received(http())  # rejected immediately, because the disk is broken
    assert [(200, GIF)] * 2 == [(a.status, a.body) for a in read_responses(transport.sent)]
    assert {200: 2} == fake.connections.responses


OVERSIZED = {
    "target-too-long": (TRACK + b"&_=" + b"x" * 32_768, [], b""),
    "too-many-headers": (TRACK, [b"X-%d: y" % number for number in range(120)], b""),
    "headers-too-large": (TRACK, [b"X: " + b"y" * 40_000], b""),
    "body-too-large": (TRACK, [b"Content-Length: 70000"], b"x" * 70_000),
}


@pytest.mark.parametrize("name", OVERSIZED)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_always_200_hides_that_a_pixel_was_too_large_to_read(name: str, method: bytes) -> None:
    target, headers, body = OVERSIZED[name]
    fake = make_collector(always_200=True)
    response = ask(fake, http(target, method, headers, body))
    assert (200, name, GIF, True) == (
        response.status,
        response.reason,
        response.body,
        response.closes,
    )
    assert {name: 1} == fake.collector.sources.unknown.rejected
    assert {200: 1} == fake.connections.responses


@pytest.mark.parametrize("name", OVERSIZED)
def test_always_200_does_not_hide_errors_of_other_requests(name: str) -> None:
    target, headers, body = OVERSIZED[name]
    fake = make_collector(always_200=True)
    for other, method in ((target, b"PUT"), (target.replace(b"track", b"trick"), b"GET")):
        assert ask(fake, http(other, method, headers, body)).status in {413, 414, 431}


def test_always_200_applies_only_to_pixels() -> None:
    fake = make_collector(always_200=True)
    assert 404 == ask(fake, http(b"/")).status
    assert 405 == ask(fake, http(TRACK, b"PUT")).status
    assert 405 == ask(fake, http(TRACK, b"BREW")).status
    assert 400 == ask(fake, http(TRACK + b" x")).status
    assert 204 == ask(fake, http(TRACK, b"OPTIONS")).status


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        (TRACK + b"&_=" + b"x" * 32_768, [], 414),
        (TRACK, [b"X-%d: y" % number for number in range(120)], 431),
    ],
)
def test_a_rejection_of_head_has_no_body(target: bytes, headers: list[bytes], status: int) -> None:
    """See RFC 9110 section 9.3.2. A proxy would read the body as the start of the next response."""
    response = ask(make_collector(), http(target, b"HEAD", headers))
    assert (status, b"") == (response.status, response.body)
