"""Words for error messages about settings: the allowed values, and the value that was given."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import inspect

from pixelfast.config.strings import STRING_KINDS
from pixelfast.config.units import SIZE_ALLOWED, format_bytes

__all__ = ["allowed", "nearest", "one_of", "shown", "value_range", "without_secrets"]

_MAX_CHARACTERS = 60
_TYPES: dict[type, str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "an integer",
    inspect.FloatType: "a number",
    inspect.StrType: "a string",
    inspect.DictType: 'a table { NAME = "STRING" }',
    inspect.DateTimeType: "a date-time with an offset, such as 2027-01-31T00:00:00Z",
}


def allowed(kind: inspect.Type, extra: dict[str, Any]) -> str:
    """Describe the values that a type allows. `extra` is what `schema.unwrap` returns with it.

    >>> allowed(inspect.IntType(ge=0), {}), allowed(inspect.StrType(min_length=1), {})
    ('an integer, at least 0', 'a non-empty string')
    >>> allowed(inspect.IntType(ge=1, le=64), {}), allowed(inspect.FloatType(gt=0), {})
    ('an integer from 1 to 64', 'a number greater than 0')
    """
    if extra.get("allowed"):
        return str(extra["allowed"])
    if isinstance(kind, inspect.LiteralType):
        return one_of(extra["choices"])
    if isinstance(kind, inspect.VarTupleType):
        known = STRING_KINDS.get(extra.get("kind", ""))
        item = known.allowed if known else allowed(kind.item_type, extra)
        return f"an array [ … ], each item {item}"
    what = SIZE_ALLOWED if extra.get("unit") == "B" else _TYPES.get(type(kind), "another value")
    if getattr(kind, "min_length", None):
        what = what.replace("a ", "a non-empty ", 1)
    bounds = value_range(kind, extra)
    return f"{what}, {bounds}" if bounds.startswith("at ") else f"{what} {bounds}".rstrip()


def value_range(kind: inspect.Type, extra: dict[str, Any]) -> str:
    """Describe the range of a number or size; return "" if there is none.

    >>> value_range(inspect.IntType(ge=1, le=64), {}), value_range(inspect.StrType(), {})
    ('from 1 to 64', '')
    """
    least, above, most = (getattr(kind, name, None) for name in ("ge", "gt", "le"))

    def number(value: Any) -> str:
        return format_bytes(value) if extra.get("unit") == "B" else str(value)

    if least is not None and most is not None:
        return f"from {number(least)} to {number(most)}"
    words = []
    if least is not None:
        words.append(f"at least {number(least)}")
    if above is not None:
        words.append(f"greater than {number(above)}")
    if most is not None:
        words.append(f"at most {number(most)}")
    return ", ".join(words)


def one_of(names: Iterable[str]) -> str:
    """Return names as a list of alternatives.

    >>> print(one_of(["a", "b"]))
    one of "a", "b"
    >>> print(one_of(["a"]))
    "a"
    """
    quoted = [f'"{name}"' for name in names]
    return ("" if len(quoted) == 1 else "one of ") + ", ".join(quoted)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar, or None if none is similar."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)), None)


def shown(value: object) -> str:
    """Return a value as it is written in the file, without the contents of tables.

    A long value is truncated, and secrets in a URL are replaced.

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
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 3] + "…"


def without_secrets(text: str, *, is_url: bool = False) -> str:
    """Reduce a URL to its scheme, host and first path segment; return any other string as it is.

    The rest of a URL may contain users, passwords and tokens. Set `is_url` for a string that is
    meant to be a URL even if it has no scheme.
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
