"""Which route a request target names."""

from __future__ import annotations

import pytest

from pixelfast.event import route_of


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/pixel/v1/track?a=1", ("track", b"a=1")),
        (b"/pixel/v1/page", ("page", b"")),
        (b"/pixel/v1/page?", ("page", b"")),
        (b"/pixel/v1/page?a=1?b=2", ("page", b"a=1?b=2")),
        (b"/pixel/v1/page?a=1#b?c", ("page", b"a=1")),
        (b"/pixel/v1/page#a?b=1", ("page", b"")),
        (b"http://example.com/pixel/v1/page?a=1", ("page", b"a=1")),
        (b"HTTPS://user@example.com:8443/pixel/v1/track?a=http://x/", ("track", b"a=http://x/")),
        (b"/robots.txt", ("robots", b"")),
        (b"http://example.com/robots.txt", ("robots", b"")),
        (b"/", (None, b"")),
        (b"", (None, b"")),
        (b"*", (None, b"")),
        (b"example.com:80", (None, b"")),
        (b"http://example.com", (None, b"")),
        (b"http:///pixel/v1/page", (None, b"")),
        (b"http://example.com?/pixel/v1/page", (None, b"/pixel/v1/page")),
        (b"ftp://example.com/pixel/v1/page", (None, b"")),
        (b"/pixel/v1/page/", (None, b"")),
        (b"//pixel/v1/page", (None, b"")),
        (b"/pixel/v1/pages?a", (None, b"a")),
        (b"/Pixel/v1/page", (None, b"")),
        (b"/pixel/v1/p%61ge", (None, b"")),
    ],
)
def test_a_target_names_its_route(target: bytes, expected: tuple[str | None, bytes]) -> None:
    assert expected == route_of(target)
