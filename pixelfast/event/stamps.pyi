def utc_text(milliseconds: int) -> str:
    """A time since 1970 as UTC text, to the millisecond.

    Times outside the years 0 to 9999 become the nearest end of that range.

    >>> utc_text(1795342530123)
    '2026-11-22T10:15:30.123Z'
    """

def date_time_us(text: str) -> int | None:
    """Microseconds since 1970 of an RFC 3339 `date-time` (section 5.6); None where it is none.

    Digits of a second beyond the sixth are cut off.

    >>> date_time_us("1970-01-01T01:00:00.5+01:00")
    500000
    >>> date_time_us("2026-02-29T00:00:00Z") is None
    True
    """

def message_id(milliseconds: int) -> str:
    """A new UUIDv7 (RFC 9562 section 5.7): 48 bits of time, 74 random bits.

    >>> message_id(1795342530123)[:15]
    '01a202c0-f64b-7'
    """
