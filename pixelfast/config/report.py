"""Settings for people to read: the effective ones as TOML, and the reference of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, get_args

import msgspec

from pixelfast.config.destinations import Destination
from pixelfast.config.schema import (
    Config,
    Deliver,
    Log,
    Server,
    ServerTls,
    Source,
    Spool,
    WriteKey,
    unwrap,
)
from pixelfast.config.units import format_bytes
from pixelfast.config.words import without_secrets
from pixelfast.printable import toml_text

__all__ = ["describe", "fingerprint", "mask", "reference"]

_FINGERPRINT_DIGITS = 12


def mask(secret: str) -> str:
    """Keep just enough of a secret to tell it from another.

    >>> mask("wk_live_1234567890"), mask("short")
    ('wk_live_…', '…')
    """
    return f"{secret[:8]}…" if len(secret) >= 16 else "…"


def fingerprint(secret: str) -> str:
    """Return a name for a secret that does not reveal it: the first digits of its SHA-256.

    >>> fingerprint("wk_live_1234567890")
    '7bb6b131a11b'
    """
    encoded = secret.encode("utf-8", "surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:_FINGERPRINT_DIGITS]


def describe(config: Config) -> str:
    """Write the whole of `config` as TOML, every default filled in, every secret masked."""
    return "\n".join(_table(config, "")).strip() + "\n"


def _table(struct: msgspec.Struct, path: str) -> Iterator[str]:
    """A struct's plain fields first, then its tables, as TOML wants them."""
    later: list[tuple[str, Any]] = []
    tag_field = struct.__struct_config__.tag_field
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        name = field.encode_name
        if isinstance(value, msgspec.Struct) or (
            isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct)
        ):
            later.append((name, value))
        elif value is not None:
            yield f"{name} = {_value(value, unwrap(msgspec.inspect.type_info(field.type))[1])}"
        if name == "name" and tag_field:
            yield f'{tag_field} = "{struct.__struct_config__.tag}"'
    for name, value in later:
        dotted = f"{path}.{name}" if path else name
        if isinstance(value, msgspec.Struct):
            yield f"\n[{dotted}]"
            yield from _table(value, dotted)
        else:
            for item in value:
                yield f"\n[[{dotted}]]"
                yield from _table(item, dotted)


def _value(value: object, extra: dict[str, Any]) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{toml_text(k)} = {_value(v, extra)}" for k, v in value.items())
            + " }"
        )
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item, extra) for item in value) + "]"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if extra.get("unit") == "B" and isinstance(value, int):
        return f'"{format_bytes(value)}"'
    if isinstance(value, str):
        if extra.get("secret"):
            value = mask(value)
        elif "url" in extra.get("kind", ""):
            value = without_secrets(value)
        return toml_text(value)
    return repr(value)


def reference() -> str:
    """Every setting with its default and meaning, as Markdown tables."""
    parts = [_section("(top level)", Config)]
    for title, cls in (
        ("[server]", Server),
        ("[server.tls]", ServerTls),
        ("[spool]", Spool),
        ("[deliver]", Deliver),
        ("[log]", Log),
        ("[[sources]]", Source),
        ("[[sources]] write_keys", WriteKey),
        *(
            (f'[[destinations]] type = "{cls.__struct_config__.tag}"', cls)
            for cls in get_args(Destination)
        ),
    ):
        parts.append(_section(title, cls))
    return "\n\n".join(parts) + "\n"


def _section(title: str, cls: type[msgspec.Struct]) -> str:
    lines = [f"### {title}", "", "| setting | default | |", "|---|---|---|"]
    for field in msgspec.structs.fields(cls):
        annotation = msgspec.inspect.type_info(field.type)
        kind, extra = unwrap(annotation)
        meaning = _description(annotation) or extra.get("allowed", "")
        if not meaning:
            continue  # a section of its own
        if isinstance(kind, msgspec.inspect.LiteralType):
            meaning += ": " + ", ".join(f"`{choice}`" for choice in kind.values)
        default = "" if field.required else _default(field.default, extra)
        lines.append(f"| `{field.encode_name}` | {default} | {meaning} |")
    return "\n".join(lines)


def _default(value: object, extra: dict[str, Any]) -> str:
    if value is None:
        return ""
    if callable(value) or value is msgspec.NODEFAULT:  # a default factory: of a table
        return "`{ }`"
    return f"`{_value(value, extra)}`"


def _description(kind: msgspec.inspect.Type) -> str:
    while isinstance(kind, msgspec.inspect.Metadata):
        text = (kind.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        kind = kind.type
    return ""
