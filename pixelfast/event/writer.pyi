from typing import Literal

from pixelfast.event.decoder import Rules

__all__ = ["EventWriter", "Sink"]

class Sink:
    """Receive events from compiled code: `reserve` returns space, `take` ends an event.

    Python code cannot call it; `EventWriter.write` returns the event instead.
    """

class EventWriter:
    """Turn request targets into events: call `open`, `write_key` and `write` in this order.

    A writer must not be used by two threads at once. It caches keys and templates in at most about
    20 MB.

    Args:
        uses_templates: write frequent shapes of events from templates, which is about four times as
            fast. The events are identical either way.

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
    """Number of events written from templates."""

    def untemplated_events(self) -> dict[str, int]:
        """Return the numbers of events that no template has written, by reason.

        `new-shape`: the shape has occurred fewer than four times, or is too large to be cached.
        `unsupported-shape`: no template can represent the shape, for example because it repeats
        `userId`. `unsupported-value`: a template cannot write one of the values.
        """

    def __init__(self, *, uses_templates: bool = True) -> None: ...
    def open(
        self, target: bytes, *, is_checked: bool = False
    ) -> Literal["track", "page", "robots"] | None:
        """Open a request target and return its route, or None if it names none.

        The target may have origin form or absolute form (RFC 9112 sections 3.2.1 and 3.2.2). Only
        `track` and `page` have an event. The previous target is closed, even if this call fails.

        Args:
            target: the target as sent, at most 32,768 bytes without spaces and control characters.
            is_checked: skip the check of the characters, because an HTTP parser has done it.

        Raises:
            RequestError: 414 if the target is longer than 32,768 bytes; 400 if it has spaces or
                control characters, or if its query has more than 256 parameters.

        >>> EventWriter().open(b"http://example.com/pixel/v1/page?userId=1#top")
        'page'
        """

    def write_key(self) -> str | None:
        """Return the first write key of the open target that is not blank.

        It is decoded and trimmed. The result is an empty string if all write keys are blank, and
        None if the target has none.

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

        The JSON is at most 32,768 bytes of UTF-8 without a line feed. Each warning is (reason, raw
        key) of a parameter that was omitted or corrected.

        Args:
            rules: the rules of the source that the write key names.
            received_ms: the time of the request, in milliseconds since 1970.
            address: the client's address, for `request_ip`; empty if unknown.
            user_agent: the User-Agent header, for `context.userAgent` if that is missing or blank.
            referer: the Referer header, for `fill`.
            languages: the Accept-Language header, for `fill`.
            message_id: the messageId of an event whose query has none: at most 128 bytes of visible
                ASCII without `"` and backslash. If it is empty, a UUIDv7 is generated.

        Raises:
            RequestError: 400 if a key has more than 32 segments, if there is neither userId nor
                anonymousId, or if a track call has no event; 413 if the event is longer than 32,768
                bytes or its arrays have more than 16,384 slots.
            ValueError: no target with an event is open, or `message_id` is invalid.

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
