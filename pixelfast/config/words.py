"""What a setting takes and what it was given, in words for the person who wrote it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import inspect

from pixelfast.config.units import SIZE_ALLOWED, format_bytes

__all__ = ["allowed", "choices", "nearest", "one_of", "shown", "without_secrets"]

_MOST_CHARACTERS = 60
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
_WORDS: dict[type, str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a string",
    inspect.DictType: 'a table { NAME = "STRING" }',
    inspect.DateTimeType: "a date-time with its offset, such as 2027-01-31T00:00:00Z",
}


def allowed(kind: inspect.Type, extra: dict[str, Any]) -> str:
    """Say what a type takes.

    >>> allowed(inspect.IntType(ge=0, le=9), {}), allowed(inspect.StrType(min_length=1), {})
    ('a whole number, at least 0, at most 9', 'a non-empty string')
    """
    if extra.get("allowed"):
        return str(extra["allowed"])
    if isinstance(kind, inspect.LiteralType):
        return one_of(choices(kind))
    if isinstance(kind, inspect.VarTupleType):
        return f"an array [ … ], each item: {allowed(kind.item_type, {})}"
    what = SIZE_ALLOWED if extra.get("unit") == "B" else _WORDS.get(type(kind), "another value")
    bounds = [
        f", {word} {format_bytes(bound) if extra.get('unit') == 'B' else bound}"
        for name, word in _BOUNDS
        if (bound := getattr(kind, name, None)) is not None
    ]
    if getattr(kind, "min_length", None):
        what = what.replace("a ", "a non-empty ", 1)
    return what + "".join(bounds)


def choices(kind: inspect.Type) -> list[str]:
    """The texts that a type takes, where they are counted out."""
    return [str(choice) for choice in kind.values] if isinstance(kind, inspect.LiteralType) else []


def one_of(names: Iterable[str]) -> str:
    """
    >>> print(one_of(["a", "b"]))
    one of "a", "b"
    """
    return "one of " + ", ".join(f'"{name}"' for name in names)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)), None)


def shown(value: object) -> str:
    """A value as it stands in the file, cut where it is long; what is inside tables stays unsaid.

    >>> shown({"write_keys": ["wk_1"]}), shown(["a", {"b": 1}]), shown("https://u:p@h/x?token=1")
    ('{ … }', '["a", { … }]', '"https://…@h/x?…"')
    >>> without_secrets("https://hooks.example.com/services/T0/B1?token=1")
    'https://hooks.example.com/services/…?…'
    """
    if isinstance(value, dict):
        return "{ … }"
    if isinstance(value, list):
        text = "[" + ", ".join(shown(item) for item in value) + "]"
    else:
        plain = without_secrets(value) if isinstance(value, str) else value
        text = json.dumps(plain, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 3] + "…"


def without_secrets(text: str, *, is_url: bool = False) -> str:
    """A URL with its scheme, host and first path segment; any other text as it is.

    Users, passwords and tokens stand in the rest of it. `is_url`: it is meant to be a URL, even if
    its scheme is missing.
    """
    if "://" not in text:
        return without_secrets(f"x://{text}").removeprefix("x://") if is_url else text
    try:
        scheme, netloc, path, query, _ = urlsplit(text)
    except ValueError:
        return text.partition("://")[0] + "://…"
    _, at, host = netloc.rpartition("@")
    first, _, rest = path.lstrip("/").partition("/")
    if rest:
        path = f"/{first}/…"
    return urlunsplit((scheme, f"…@{host}" if at else host, path, "…" if query else "", ""))
