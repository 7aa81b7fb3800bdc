from typing import Literal

def route_of(target: bytes) -> tuple[Literal["track", "page", "robots"] | None, bytes]:
    """The route that a request target names, and its query.

    Takes the origin form and the absolute form (RFC 9112 sections 3.2.1 and 3.2.2).

    >>> route_of(b"/pixel/v1/page?userId=1")
    ('page', b'userId=1')
    >>> route_of(b"http://example.com/pixel/v1/track?event=a#top")
    ('track', b'event=a')
    >>> route_of(b"/favicon.ico")
    (None, b'')
    """
