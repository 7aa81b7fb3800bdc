"""The effective settings as TOML, and the reference of all settings as Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, get_args

import msgspec

from pixelfast.config.cluster import Cluster
from pixelfast.config.delivery import Batching, Delivery, Remote
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
from pixelfast.config.words import value_range, without_secrets
from pixelfast.printable import toml_text

__all__ = ["describe", "fingerprint", "mask", "reference"]

_FINGERPRINT_DIGITS = 12


def mask(secret: str) -> str:
    """Return the beginning of a long secret, which distinguishes it from others, and "…".

    >>> mask("wk_live_1234567890"), mask("short")
    ('wk_live_…', '…')
    """
    return f"{secret[:8]}…" if len(secret) >= 16 else "…"


def fingerprint(secret: str) -> str:
    """Return the first 12 hexadecimal digits of a secret's SHA-256, which do not reveal it.

    >>> fingerprint("wk_live_1234567890")
    '7bb6b131a11b'
    """
    encoded = secret.encode("utf-8", "surrogatepass")
    return hashlib.sha256(encoded).hexdigest()[:_FINGERPRINT_DIGITS]


def describe(config: Config) -> str:
    """Return all settings as TOML, with defaults filled in and secrets masked."""
    return "\n".join(_table(config, "")).strip() + "\n"


def _table(struct: msgspec.Struct, path: str) -> Iterator[str]:
    """Yield the lines of a struct: plain fields before tables, as TOML requires."""
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
            yield f"{name} = {_value(value, unwrap(field.type)[1])}"
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
    """Return Markdown tables of all settings with their defaults, values and meanings."""
    types = get_args(Destination)
    parts = [_section("(top level)", _fields(Config))]
    for title, section in (
        ("[server]", Server),
        ("[server.tls]", ServerTls),
        ("[spool]", Spool),
        ("[deliver]", Deliver),
        ("[log]", Log),
        ("[cluster]", Cluster),
        ("[[sources]]", Source),
        ("[[sources]] write_keys", WriteKey),
    ):
        parts.append(_section(title, _fields(section)))
    common = _fields(Delivery)
    kinds = _listed(map(_tag, types))
    type_row = f"| `type` | required | {kinds} | product or protocol of the destination |"
    parts.append(_section("[[destinations]]", common, "All destinations.", type_row))
    shared: dict[type[msgspec.Struct], list[msgspec.structs.FieldInfo]] = {Delivery: common}
    for title, base in (("over the network", Remote), ("over HTTP", Batching)):
        own = _fields(base, [each for fields in shared.values() for each in fields])
        # Each type has its own default for the fields that have none here.
        shared[base] = [each for each in own if not each.required]
        users = [cls for cls in types if issubclass(cls, base)]
        intro = f"Destinations of the types {_listed(map(_tag, users))}."
        parts.append(_section(f"[[destinations]] {title}", shared[base], intro))
    for cls in types:
        shown = [each for base, own in shared.items() if issubclass(cls, base) for each in own]
        inherited = [each for each in shown if each.name not in cls.__annotations__]
        parts.append(_section(f'[[destinations]] type = "{_tag(cls)}"', _fields(cls, inherited)))
    return "\n\n".join(parts) + "\n"


def _tag(cls: type[msgspec.Struct]) -> str:
    return str(cls.__struct_config__.tag)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _fields(
    cls: type[msgspec.Struct], inherited: Sequence[msgspec.structs.FieldInfo] = ()
) -> list[msgspec.structs.FieldInfo]:
    """Return the fields of a struct without those that are in `inherited`."""
    names = {each.name for each in inherited}
    return [each for each in msgspec.structs.fields(cls) if each.name not in names]


def _section(
    title: str, fields: list[msgspec.structs.FieldInfo], intro: str = "", *rows: str
) -> str:
    lines = [f"### {title}", "", *([intro, ""] if intro else [])]
    lines += ["| setting | default | values | meaning |", "|---|---|---|---|", *rows]
    for field in fields:
        kind, extra = unwrap(field.type)
        meaning = _description(msgspec.inspect.type_info(field.type))
        if not meaning:
            continue  # a table, which has its own section
        default = "required" if field.required else _default(field.default, extra)
        lines.append(f"| `{field.encode_name}` | {default} | {_values(kind, extra)} | {meaning} |")
    return "\n".join(lines)


def _values(kind: msgspec.inspect.Type, extra: dict[str, Any]) -> str:
    if choices := extra.get("choices"):
        any_of = "" if isinstance(kind, msgspec.inspect.LiteralType) else "any of "
        return any_of + _listed(choices)
    return str(extra.get("allowed", "")) or value_range(kind, extra)


def _default(value: object, extra: dict[str, Any]) -> str:
    if value is None:
        return ""
    if callable(value) or value is msgspec.NODEFAULT:  # the default factory of a table
        return "`{ }`"
    return f"`{_value(value, extra)}`"


def _description(kind: msgspec.inspect.Type) -> str:
    while isinstance(kind, msgspec.inspect.Metadata):
        text = (kind.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        kind = kind.type
    return ""
