"""The route and the query of a request target; the write key shows where the query begins."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules
from tests import oracle


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/pixel/v1/track?writeKey=1", ("track", "1")),
        (b"/pixel/v1/page", ("page", None)),
        (b"/pixel/v1/page?", ("page", None)),
        (b"/pixel/v1/page?writeKey=1?b=2", ("page", "1?b=2")),
        (b"/pixel/v1/page?writeKey=1#b?c", ("page", "1")),
        (b"/pixel/v1/page#a?writeKey=1", ("page", None)),
        (b"http://example.com/pixel/v1/page?writeKey=1", ("page", "1")),
        (
            b"HTTPS://user@example.com:8443/pixel/v1/track?writeKey=http://x/",
            ("track", "http://x/"),
        ),
        (b"/robots.txt", ("robots", None)),
        (b"http://example.com/robots.txt", ("robots", None)),
        (b"/", (None, None)),
        (b"", (None, None)),
        (b"*", (None, None)),
        (b"example.com:80", (None, None)),
        (b"http://example.com", (None, None)),
        (b"http:///pixel/v1/page", (None, None)),
        (b"http://example.com?/pixel/v1/page", (None, None)),
        (b"ftp://example.com/pixel/v1/page", (None, None)),
        (b"/pixel/v1/page/", ("page", None)),
        (b"//pixel/v1/page", ("page", None)),
        (b"/pixel/v1/p%61ge", ("page", None)),
        (b"/pixel/v1/%74rack?writeKey=1", ("track", "1")),
        (b"/pixel/v1/track.gif?writeKey=1", ("track", "1")),
        (b"/pixel/v1/track%2egif/?writeKey=1", (None, None)),
        (b"/pixel/v1/track%2Egif?writeKey=1", ("track", "1")),
        (b"/" * 900 + b"pixel//v1///track/////?writeKey=1", ("track", "1")),
        (b"http://example.com//pixel/v1/page/?writeKey=1", ("page", "1")),
        (b"//robots.txt", ("robots", None)),
        (b"/pixel/v1/page/.gif", (None, None)),
        (b"/pixel/v1/page.gif.gif", (None, None)),
        (b"/pixel/v1/page.GIF", (None, None)),
        (b"/pixel/v1%2Fpage", (None, None)),
        (b"/pixel/v1/p%2561ge", (None, None)),
        (b"/pixel/v1/page%", (None, None)),
        (b"/pixel/v1/page%2", (None, None)),
        (b"/pixel/v1/page%20", (None, None)),
        (b"/pixel/v1/./page", (None, None)),
        (b"/pixel/v1/pages?writeKey=1", (None, None)),
        (b"/pixel/v1/page" + b"e" * 900, (None, None)),
        (b"/Pixel/v1/page", (None, None)),
        (b"/.gif", (None, None)),
        (b".gif", (None, None)),
    ],
)
def test_a_target_names_its_route(target: bytes, expected: tuple[str | None, str | None]) -> None:
    writer = EventWriter()
    assert expected == (writer.open(target), writer.write_key())


def test_a_target_may_have_32768_bytes() -> None:
    writer = EventWriter()
    start = b"/pixel/v1/page?userId=u&writeKey=k&a="
    assert "page" == writer.open(start + b"x" * (32_768 - len(start)))
    assert "k" == writer.write_key()
    with pytest.raises(RequestError, match="is 32,769 bytes long; the limit is 32,768") as caught:
        writer.open(start + b"x" * (32_769 - len(start)))
    assert (414, "target-too-long") == (caught.value.status, caught.value.reason)


@pytest.mark.parametrize("count", [256, 257])
def test_a_query_may_have_256_parameters(count: int) -> None:
    target = b"/pixel/v1/page?userId=u" + b"&a=1" * (count - 1) + b"&&"
    if count == 256:
        assert "page" == EventWriter().open(target)
    else:
        with pytest.raises(RequestError) as caught:
            EventWriter().open(target)
        assert (400, "too-many-parameters") == (caught.value.status, caught.value.reason)


PATH_PIECES = (
    "/ / // /// pixel v1 track page .gif % %2 %2F %70 %25 %74rack p%61ge robots.txt x ../ ~"
).split()


@given(st.lists(st.sampled_from(PATH_PIECES), max_size=9).map("".join))
@example("/pixel/v1/page.gif/")
def test_a_path_is_compared_as_the_oracle_compares_it(path: str) -> None:
    routes = {**oracle.ROUTES, "/robots.txt": "robots"}
    for each in (path, f"/pixel/v1{path}", f"/pixel/v1/page{path}"):
        if "?" not in each and "#" not in each:
            assert routes.get(oracle.plain_path(each)) == EventWriter().open(each.encode())


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F])
def test_spaces_and_control_characters_in_a_target_are_rejected(byte: int) -> None:
    target = b"/pixel/v1/page?userId=" + bytes([byte])
    with pytest.raises(RequestError) as caught:
        EventWriter().open(target)
    assert (400, "malformed-request") == (caught.value.status, caught.value.reason)
    assert "page" == EventWriter().open(target, is_checked=True)


def test_every_other_byte_in_a_target_is_allowed() -> None:
    visible = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
    assert "page" == EventWriter().open(b"/pixel/v1/page?" + visible)


@pytest.mark.parametrize(
    "target",
    [
        b"/robots.txt",
        b"/",
        b"/pixel/v1/page?userId=\x7f",
        b"/pixel/v1/page?" + b"x" * 33_000,
        b"/pixel/v1/page?userId=u" + b"&a" * 300,
    ],
)
def test_a_target_without_an_event_closes_the_previous_one(target: bytes) -> None:
    writer = EventWriter()
    with pytest.raises(ValueError, match="no target with an event is open"):
        writer.write(Rules(), 0)
    writer.open(b"/pixel/v1/page?writeKey=k&userId=u")
    with suppress(RequestError):
        writer.open(target)
    assert writer.write_key() is None
    with pytest.raises(ValueError, match="no target with an event is open"):
        writer.write(Rules(), 0)
