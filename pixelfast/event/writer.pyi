from typing import Literal

from pixelfast.event.decoder import Rules

__all__ = ["EventWriter", "Sink"]

class Sink:
    """Take events from compiled code: `reserve` gives room, `take` says how much of it is used.

    It has no methods for Python, where `EventWriter.write` returns the event.
    """

class EventWriter:
    """Turn request targets into events, by `open`, `write_key` and `write` in this order.

    Not for use by two threads at once. It keeps what it learns of the keys that come again and
    again, at most about 20 MB.

    Args:
        uses_templates: write common events from templates, about four times as fast. The events are
            the same without; tests compare the two.

    >>> from pixelfast.event import Rules
    >>> writer = EventWriter()
    >>> writer.open(b"/pixel/v1/track?writeKey=k&userId=7&event=Bought&properties.revenue=29.99")
    'track'
    >>> writer.write_key()
    'k'
    >>> event, warnings = writer.write(Rules(), 1795342530123)
    >>> event[:76]
    b'{"type":"track","userId":"7","event":"Bought","properties":{"revenue":29.99}'
    """

    from_templates: int
    """How many events were written from templates."""

    def __init__(self, *, uses_templates: bool = True) -> None: ...
    def open(
        self, target: bytes, *, is_checked: bool = False
    ) -> Literal["track", "page", "robots"] | None:
        """Open a request target and return its route; None: no route of this server.

        Takes the origin form and the absolute form (RFC 9112 sections 3.2.1 and 3.2.2). Only
        `track` and `page` have an event. The target before is closed, also by an error.

        Args:
            target: the target as it was sent, at most 32,768 bytes of visible ASCII.
            is_checked: an HTTP parser has already checked its characters.

        Raises:
            RequestError: 414, the target is longer than 32,768 bytes; 400, it has other characters
                than visible ASCII, or its query more than 256 parameters.

        >>> EventWriter().open(b"http://example.com/pixel/v1/page?userId=1#top")
        'page'
        """

    def write_key(self) -> str | None:
        """Return the first write key of the open target, decoded; None: it has none.

        >>> writer = EventWriter()
        >>> writer.open(b"/pixel/v1/page?writeKey=a%20b&writeKey=c"), writer.write_key()
        ('page', 'a b')
        """

    def write(
        self,
        rules: Rules,
        received_ms: int,
        *,
        address: str = "",
        user_agent: bytes = b"",
        referer: bytes | None = None,
        languages: bytes | None = None,
        message_id: bytes = b"",
    ) -> tuple[bytes, list[tuple[str, bytes]]]:
        """Return the event of the open target as JSON, and its warnings.

        The JSON is UTF-8 of at most 32,768 bytes, without a line feed. A warning is (reason, raw
        key) of a parameter that was left out.

        Args:
            rules: those of the source that the write key names.
            received_ms: when the request arrived, milliseconds since 1970.
            address: the client's address, for `request_ip`; empty: unknown.
            user_agent: the User-Agent header, for `context.userAgent` if that is absent.
            referer: the Referer header, used if the rules fill in from it.
            languages: the Accept-Language header, used if the rules fill in from it.
            message_id: the messageId if the query has none: at most 128 bytes of visible ASCII
                without `"` and a backslash. Empty: a UUIDv7 is made.

        Raises:
            RequestError: 400, a key has more than 32 segments, there is neither userId nor
                anonymousId, or a track call has no event; 413, the event is longer than 32,768
                bytes, or its arrays are so large that it would be.
            ValueError: no target with an event is open, or `message_id` is not one.

        >>> from pixelfast.event import Rules
        >>> writer = EventWriter()
        >>> writer.open(b"/pixel/v1/page?userId=1&properties..a=1")
        'page'
        >>> event, warnings = writer.write(Rules(), 0, address="192.0.2.1")
        >>> event.endswith(b'"timestamp":"1970-01-01T00:00:00.000Z","request_ip":"192.0.2.1"}')
        True
        >>> warnings
        [('empty-segment', b'properties..a')]
        """
