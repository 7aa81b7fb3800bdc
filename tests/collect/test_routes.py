"""Routes and methods: which requests store an event, and the responses to all others."""

from __future__ import annotations

import pytest

from tests.collect.wire import GIF, PAGE, PIXEL_HEADERS, TO_READER, TRACK, ask, events, http
from tests.fakes import FakeCollector


@pytest.mark.parametrize(("target", "kind"), [(TRACK, "track"), (PAGE, "page")])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_pixel_stores_one_event(target: bytes, kind: str, method: bytes) -> None:
    fake = FakeCollector()
    response = ask(fake, http(target, method))
    assert (200, GIF, None) == (response.status, response.body, response.reason)
    assert [kind] == [event["type"] for event in events(fake)]


@pytest.mark.parametrize("more", [[], [TO_READER]], ids=["scan", "reader"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/pixel/v1/track/", "track"),
        (b"//pixel/v1/track", "track"),
        (b"/pixel//v1///page", "page"),
        (b"/pixel/v1/track.gif", "track"),
        (b"/pixel/v1/%74rack", "track"),
        (b"/%70ixel/v1/pag%65.gi%66", "page"),
        (b"http://pixel.example//pixel/v1/page/", "page"),
    ],
)
def test_equivalent_spellings_of_a_path_are_the_same_route(
    path: bytes, kind: str, more: list[bytes]
) -> None:
    fake = FakeCollector()
    query = b"?writeKey=wk-demo&userId=u&event=E"
    response = ask(fake, http(path + query, headers=more))
    assert (200, GIF, None) == (response.status, response.body, response.reason)
    assert [kind] == [event["type"] for event in events(fake)]


@pytest.mark.parametrize("target", [TRACK, PAGE])
def test_head_gets_the_headers_of_the_gif_and_stores_no_event(target: bytes) -> None:
    fake = FakeCollector()
    fake.collector.tick(1_700_000_000)
    of_get = ask(fake, http(target))
    of_head = ask(fake, http(target, b"HEAD"))
    assert (200, of_get.headers, b"") == (of_head.status, of_head.headers, of_head.body)
    assert 1 == len(events(fake))  # the event of GET


@pytest.mark.parametrize("target", [b"/pixel/v1/track", b"/pixel/v1/track?writeKey=wk-who", TRACK])
def test_head_is_never_rejected(target: bytes) -> None:
    """Mail scanners send HEAD, so its query is not checked."""
    fake = FakeCollector()
    response = ask(fake, http(target, b"HEAD"))
    assert (200, b"", None) == (response.status, response.body, response.reason)
    fake.loop.turn()
    assert not fake.disk.is_busy


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Content-Length: 0"], b""),
        ([], b""),
        ([b"Content-Length: 17"], b"userId=other&x=1\n"),
        ([b"Content-Type: application/json", b"Content-Length: 2"], b"{}"),
        ([b"Content-Length: 65536"], b"x" * 65536),
        ([b"Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n"),
        ([b"Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    ],
    ids=["empty", "none", "form", "json", "64-KiB", "chunked", "chunked-empty"],
)
def test_the_body_of_a_post_is_ignored(headers: list[bytes], body: bytes) -> None:
    fake = FakeCollector()
    assert 200 == ask(fake, http(TRACK, b"POST", headers, body)).status
    (event,) = events(fake)
    assert ("u1", "Opened") == (event["userId"], event["event"])
    assert "x" not in event


def test_a_get_may_have_a_body() -> None:
    fake = FakeCollector()
    request = http(TRACK, b"GET", [b"Content-Length: 3"], b"abc")
    assert 200 == ask(fake, request).status
    assert 1 == len(events(fake))


@pytest.mark.parametrize("target", [TRACK, b"/pixel/v1/page", PAGE])
def test_options_gets_204_without_a_body_or_an_event(target: bytes) -> None:
    fake = FakeCollector()
    response = ask(fake, http(target, b"OPTIONS"))
    assert (204, b"") == (response.status, response.body)
    assert "Content-Length" not in response.headers  # RFC 9110 section 8.6
    assert "Content-Type" not in response.headers
    fake.loop.turn()
    assert not fake.disk.is_busy


@pytest.mark.parametrize(
    "method", [b"PUT", b"DELETE", b"PATCH", b"TRACE", b"PURGE", b"PROPFIND", b"MKCOL", b"SEARCH"]
)
def test_any_other_method_gets_405_with_the_allowed_methods(method: bytes) -> None:
    fake = FakeCollector()
    response = ask(fake, http(TRACK, method))
    assert (405, GIF, "method-not-allowed") == (response.status, response.body, response.reason)
    assert "GET, HEAD, POST, OPTIONS" == response.headers["Allow"]
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert [] == events(fake)
    assert {"method-not-allowed": 1} == fake.collector.sources.unknown.rejected


def test_only_405_and_options_have_an_allow_header() -> None:
    fake = FakeCollector()
    assert "Allow" not in ask(fake, http(TRACK)).headers
    assert "Allow" not in ask(fake, http(b"/pixel/v1/track")).headers
    assert "Allow" not in ask(fake, http(b"/")).headers


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/pixel",
        b"/pixel/v1",
        b"/pixel/v1/",
        b"/pixel/v1/track/x",
        b"/pixel/v1/tracks",
        b"/pixel/v1/trac",
        b"/pixel/v1/pages?writeKey=wk-demo&userId=u",
        b"/pixel/v1/Track?writeKey=wk-demo&userId=u&event=E",
        b"/pixel//page?writeKey=wk-demo&userId=u",
        b"/pixel/v1/page;x?writeKey=wk-demo&userId=u",
        b"/pixel/v1%2Fpage?writeKey=wk-demo&userId=u",
        b"/x?/pixel/v1/page?writeKey=wk-demo&userId=u",
        b"*",
        b"/robots.txt/x",
        b"/pixel/v1/%2570age?writeKey=wk-demo&userId=u",
        b"/health",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"HEAD"])
def test_any_other_path_is_not_found(target: bytes, method: bytes) -> None:
    fake = FakeCollector()
    response = ask(fake, http(target, method))
    assert 404 == response.status
    assert (method == b"HEAD") == (response.body == b"")
    assert [] == events(fake)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS"])
@pytest.mark.parametrize(
    "target",
    [
        b"/pixel/",
        b"/pixel/v1/",
        b"/pixel/v2/track?writeKey=wk-demo&userId=u",
        b"/pixel/v1/tracks",
        b"//pixel///v1/trac",
        b"/%70i%78el/x",
        "/pixel/é".encode(),
        b"http://pixel.example/pixel/x?y",
    ],
)
def test_an_unknown_path_below_pixel_gets_the_gif_and_404(target: bytes, method: bytes) -> None:
    """A page whose image has a wrong path shows no broken image."""
    fake = FakeCollector()
    response = ask(fake, http(target, method, [b"Origin: https://a.example"]))
    assert (404, "not-found") == (response.status, response.reason)
    assert (b"" if method == b"HEAD" else GIF) == response.body
    assert PIXEL_HEADERS.items() <= response.headers.items()
    assert "https://a.example" == response.headers["Access-Control-Allow-Origin"]
    assert [] == events(fake)


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/favicon.ico",
        b"/pixel",
        b"/pixels/x",
        b"/x/pixel/v1/track",
        b"/pixel%2Fv1/track",
        b"/?/pixel/",
        b"/#/pixel/",
        b"*",
        b"http://pixel.example",
        b"http://pixel.example?/pixel/",
    ],
)
def test_a_path_outside_of_pixel_gets_404_as_plain_text(target: bytes) -> None:
    response = ask(FakeCollector(), http(target))
    assert (404, "not-found") == (response.status, response.reason)
    assert "text/plain; charset=utf-8" == response.headers["Content-Type"]
    assert response.body.startswith(b"Not found. Pixels are at ")


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_robots_txt_disallows_crawlers(method: bytes) -> None:
    response = ask(FakeCollector(), http(b"/robots.txt", method))
    assert 200 == response.status
    assert response.headers["Content-Type"].startswith("text/plain")
    expected = b"User-agent: *\nDisallow: /\n"
    assert str(len(expected)) == response.headers["Content-Length"]
    assert (b"" if method == b"HEAD" else expected) == response.body


@pytest.mark.parametrize("target", [TRACK, b"/robots.txt"])
@pytest.mark.parametrize("method", [b"PUT", b"POST", b"OPTIONS", b"DELETE"])
def test_a_rejected_method_is_not_in_the_allow_header(target: bytes, method: bytes) -> None:
    response = ask(FakeCollector(), http(target, method))
    if response.status == 405:
        assert method.decode() not in response.headers["Allow"].split(", ")
    else:
        assert response.status in {200, 204, 404}


@pytest.mark.parametrize(
    "prefix", [b"http://pixel.example", b"HTTPS://pixel.example:8443", b"http://u:p@h"]
)
def test_an_absolute_target_is_read_like_its_path(prefix: bytes) -> None:
    fake = FakeCollector()
    assert 200 == ask(fake, http(prefix + TRACK)).status
    assert 200 == ask(fake, http(prefix + b"/robots.txt")).status
    assert 404 == ask(fake, http(prefix + b"/")).status
    assert 404 == ask(fake, http(prefix)).status
    assert ["Opened"] == [event["event"] for event in events(fake)]


def test_the_path_of_an_absolute_target_does_not_start_within_its_query() -> None:
    """`http://host?q` has an empty path, because `?` ends the authority (RFC 3986 section 3.2)."""
    fake = FakeCollector()
    response = ask(fake, http(b"http://host?x=/pixel/v1/page?writeKey=wk-demo&userId=u"))
    assert 404 == response.status
    assert [] == events(fake)


def test_the_query_starts_after_the_first_question_mark() -> None:
    fake = FakeCollector()
    assert 200 == ask(fake, http(TRACK + b"?&properties.a?b=c?d")).status
    (event,) = events(fake)
    assert ("Opened?", {"a?b": "c?d"}) == (event["event"], event["properties"])


def test_a_fragment_is_not_part_of_the_query() -> None:
    fake = FakeCollector()
    assert 200 == ask(fake, http(TRACK + b"#&userId=other?x")).status
    (event,) = events(fake)
    assert "Opened" == event["event"]


@pytest.mark.parametrize(
    "path", [b"//pixel/v1/page", b"/pixel/v1/page/", b"/pixel/v1/page.gif", b"/pixel/v1/%70age"]
)
def test_equivalent_spellings_of_a_path_store_events(path: bytes) -> None:
    fake = FakeCollector()
    assert 200 == ask(fake, http(path + b"?writeKey=wk-demo&userId=u")).status
    assert ["u"] == [event["userId"] for event in events(fake)]
