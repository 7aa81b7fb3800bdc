"""Kinds of texts that several sections of the settings file have in common."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["HeaderName", "HeaderText", "Identifier", "IndexName", "Name", "Secret"]

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z",
        extra={"allowed": "1 to 63 letters, digits, - or _, the first a letter or digit"},
    ),
]
HeaderName = Annotated[
    str,
    Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", extra={"allowed": "RFC 9110, 5.6.2: a token"}),
]
HeaderText = Annotated[
    str,
    Meta(pattern=r"^[\t -~\x80-\xff]*\Z", extra={"allowed": "a string without control characters"}),
]
Secret = Annotated[str, Meta(min_length=1, extra={"secret": True, "kind": "secret"})]
# Of ClickHouse, the kind that needs no quotes.
Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z",
        extra={"allowed": "1 to 128 letters, digits or _, the first no digit"},
    ),
]
# Of Elasticsearch: a part of what its documentation allows, and nothing that a URL would mistake.
IndexName = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[a-z0-9.][a-z0-9._-]{0,199}\Z",
        extra={"allowed": "1 to 200 small letters, digits, . _ or -, the first no _ or -"},
    ),
]
