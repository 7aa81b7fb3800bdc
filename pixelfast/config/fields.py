"""Types that several sections of the settings file share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["HeaderName", "HeaderText", "Identifier", "IndexName", "Name", "Secret"]

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z",
        extra={"allowed": "1 to 63 letters, digits, - or _, beginning with a letter or digit"},
    ),
]
HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z",
        extra={"allowed": "a header name (a token of RFC 9110 section 5.6.2)"},
    ),
]
HeaderText = Annotated[
    str,
    Meta(pattern=r"^[\t -~\x80-\xff]*\Z", extra={"allowed": "a string without control characters"}),
]
Secret = Annotated[str, Meta(min_length=1, extra={"secret": True, "kind": "secret"})]
# ClickHouse identifiers that do not have to be quoted.
Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z",
        extra={"allowed": "1 to 128 letters, digits or _, beginning with a letter or _"},
    ),
]
# Elasticsearch index names that do not have to be escaped in a URL.
IndexName = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[a-z0-9.][a-z0-9._-]{0,199}\Z",
        extra={
            "allowed": "1 to 200 lower-case letters, digits, . _ or -, not beginning with _ or -"
        },
    ),
]
