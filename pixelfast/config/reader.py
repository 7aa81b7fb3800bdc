"""From a TOML file to a `Config`, or to the list of all its mistakes at once.

The structs of `schema` are the only description of what is allowed: this module walks them beside
the file's tables. Texts may hold ``${NAME}``, a value from the environment (``$${`` is a plain
``${``); where a text is wanted, ``{ file = "/path" }`` takes it from a file, without its last
newline.
"""

from __future__ import annotations

import base64
import difflib
import importlib.util
import ipaddress
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from pixelfast.config.destinations import SIGNING_ALLOWED
from pixelfast.config.schema import Config, WriteKey, unwrap
from pixelfast.config.units import (
    ADDRESS_ALLOWED,
    SIZE_ALLOWED,
    format_bytes,
    parse_address,
    parse_bytes,
)
from pixelfast.errors import ConfigError, ConfigErrors

__all__ = ["config_from_table", "read_config"]

_VARIABLE = re.compile(r"\$?\$\{([^}]*)\}")
_INVALID: Any = object()  # stands where a value had a mistake that is in the list already


def read_config(path: str | Path | None, overrides: Mapping[str, object] | None = None) -> Config:
    """Read a settings file; without one, the defaults.

    `overrides` replace what the file says: {"server.listen": ["127.0.0.1:0"]}.

    Raises:
        ConfigErrors: with every mistake of the file: key, value, what is allowed, nearest name.
    """
    table = {} if path is None else _read_table(Path(path))
    for dotted, value in (overrides or {}).items():
        *sections, name = dotted.split(".")
        place = table
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return config_from_table(table, "command line" if path is None else str(path))


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"can't be read: {error.strerror or error}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        what = f"is not TOML: {error}"
    raise ConfigErrors(str(path), [ConfigError(str(path), None, what)])


def config_from_table(table: dict[str, Any], path: str = "settings") -> Config:
    """Turn the tables of a settings file into a `Config`.

    >>> config_from_table({"server": {"workers": 2}}).server.workers
    2

    Raises:
        ConfigErrors: with every mistake; `path` names the file in its message.
    """
    reader = _Reader()
    config = reader.struct(Config, table, "")
    reader.references(table)
    if reader.problems:
        raise ConfigErrors(path, reader.problems)
    assert isinstance(config, Config)
    return config


class _Reader:
    """Walks the structs of the schema beside the tables of the file and collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[ConfigError] = []

    def refuse(
        self,
        key: str,
        value: object,
        allowed: str,
        nearest: str | None = None,
        secret: bool = False,
    ) -> Any:
        shown = "(hidden)" if secret else _shown(value)
        self.problems.append(ConfigError(key, shown, allowed, nearest=nearest))
        return _INVALID

    def complain(self, key: str, what: str, nearest: str | None = None) -> Any:
        self.problems.append(ConfigError(key, None, what, nearest=nearest))
        return _INVALID

    def struct(self, cls: type[msgspec.Struct], table: object, path: str) -> Any:
        """Read a table into `cls`; every field and every unknown key is looked at."""
        if not isinstance(table, dict):
            return self.refuse(path, table, "a table")
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        prefix = f"{path}." if path else ""
        values: dict[str, Any] = {}
        for name, value in table.items():
            if name == cls.__struct_config__.tag_field:
                continue
            if name not in fields:
                self.complain(prefix + name, "no such setting", _nearest(name, fields))
                continue
            values[name] = self.field(fields[name].type, value, prefix + name)
        missing = [n for n, field in fields.items() if field.required and n not in table]
        for name in missing:
            self.complain(prefix + name, "is missing")
        if missing or any(value is _INVALID for value in values.values()):
            return _INVALID
        return cls(**values)

    def field(self, annotation: Any, value: object, path: str) -> Any:
        """Read one field: a table, an array of tables, or a plain value."""
        kind, extra = unwrap(inspect.type_info(annotation))
        if isinstance(kind, inspect.StructType):
            return self.struct(kind.cls, value, path)
        if isinstance(kind, inspect.VarTupleType):
            structs = _structs_of(kind.item_type)
            if structs:
                return self.tables(structs, kind.min_length or 0, value, path)
        return self.plain(annotation, kind, extra, value, path)

    def tables(
        self, structs: list[type[msgspec.Struct]], least: int, value: object, path: str
    ) -> Any:
        """Read an array of tables, each of them one of `structs`."""
        if not isinstance(value, list):
            return self.refuse(path, value, "an array [ … ]")
        if len(value) < least:
            return self.refuse(path, value, f"at least {least}")
        items = []
        for place, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            items.append(self.table(structs, item, f"{path}[{name or place}]"))
        return _INVALID if _INVALID in items else tuple(items)

    def table(self, structs: list[type[msgspec.Struct]], value: object, path: str) -> Any:
        """Read one table; where there is a choice, its `type` makes it."""
        if structs == [WriteKey] and isinstance(value, str):
            value = {"key": value}
        if len(structs) == 1 or not isinstance(value, dict):
            return self.struct(structs[0], value, path)
        kinds = {str(cls.__struct_config__.tag): cls for cls in structs}
        tag = value.get("type")
        if tag is None:
            return self.complain(f"{path}.type", f"is missing: {_one_of(kinds)}")
        if tag not in kinds:
            return self.refuse(f"{path}.type", tag, _one_of(kinds), _nearest(str(tag), kinds))
        return self.struct(kinds[tag], value, path)

    def plain(
        self, annotation: Any, kind: inspect.Type, extra: dict[str, Any], value: object, path: str
    ) -> Any:
        """Check one value without tables inside: its type and bounds, then its kind of text."""
        is_text = isinstance(kind, inspect.StrType | inspect.LiteralType | inspect.VarTupleType)
        if is_text or isinstance(kind, inspect.DictType):
            value = self.resolve(value, path, is_text)
            if value is _INVALID:
                return value
        if extra.get("unit") == "B" and isinstance(value, str):
            try:
                value = parse_bytes(value)
            except ValueError:
                return self.refuse(path, value, SIZE_ALLOWED)
        allowed = extra.get("allowed") or _allowed(kind, extra)
        try:
            checked = msgspec.convert(value, annotation)
        except msgspec.ValidationError:
            nearest = _nearest(_first_text(value), _choices(kind))
            return self.refuse(path, value, allowed, nearest, bool(extra.get("secret")))
        if isinstance(checked, float) and not math.isfinite(checked):
            return self.refuse(path, value, allowed)
        is_right = _KINDS.get(extra.get("kind", ""))
        for item in checked if isinstance(checked, tuple) else (checked,):
            if is_right is not None and not is_right[0](item):
                return self.refuse(path, item, is_right[1], secret=bool(extra.get("secret")))
        return checked

    def resolve(self, value: object, path: str, is_text: bool = True) -> Any:
        """Put in what `${NAME}` and `{ file = … }` stand for, in arrays and tables too."""
        if isinstance(value, list):
            items = [self.resolve(item, f"{path}[{place}]") for place, item in enumerate(value)]
            return _INVALID if _INVALID in items else items
        if isinstance(value, dict) and not is_text:
            texts = {name: self.resolve(text, f"{path}.{name}") for name, text in value.items()}
            return _INVALID if _INVALID in texts.values() else texts
        if isinstance(value, dict):
            if list(value) != ["file"] or not isinstance(value["file"], str):
                return self.refuse(path, value, 'a text, or { file = "/path" }')
            try:
                return Path(value["file"]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                return self.refuse(path, value, f"a file that can be read ({error})")
        if not isinstance(value, str):
            return value
        for match in _VARIABLE.finditer(value):
            if not match[0].startswith("$$") and match[1] not in os.environ:
                return self.refuse(path, value, f"the environment variable {match[1]} to be set")
        return _VARIABLE.sub(
            lambda match: match[0][1:] if match[0].startswith("$$") else os.environ[match[1]], value
        )

    def references(self, table: dict[str, Any]) -> None:
        """What no single field can tell: what is used twice, names of nothing, what clashes.

        Looks at the file's own tables, so that mistakes elsewhere hide none of these.
        """
        destinations = self._names(table, "destinations")
        known = list(destinations) or [each.name for each in Config().destinations]
        folders: dict[str, str] = {}
        for name, destination in destinations.items():
            folder = destination.get("path")
            if isinstance(folder, str) and folder in folders:
                what = f'destination "{folders[folder]}" writes there already'
                self.complain(f"destinations[{name}].path", what)
            elif isinstance(folder, str) and folder:
                folders[folder] = name
            self._clashes(destination, f"destinations[{name}]")
        owners: dict[str, str] = {}
        for name, source in self._names(table, "sources").items():
            path = f"sources[{name}]"
            for place, entry in enumerate(_list(source.get("write_keys"))):
                key = entry.get("key") if isinstance(entry, dict) else entry
                if isinstance(key, str) and key in owners:
                    what = f'source "{owners[key]}" has this key already'
                    self.complain(f"{path}.write_keys[{place}]", what)
                elif isinstance(key, str):
                    owners[key] = name
            for place, wanted in enumerate(_list(source.get("destinations"))):
                if isinstance(wanted, str) and wanted not in known:
                    allowed = f"the name of a destination: {_one_of(known)}"
                    path_of = f"{path}.destinations[{place}]"
                    self.refuse(path_of, wanted, allowed, _nearest(wanted, known))

    def _clashes(self, destination: dict[str, Any], path: str) -> None:
        """Settings of one destination that do not go together."""
        for other in ("bearer_token", "api_key"):
            if destination.get("username") and destination.get(other):
                self.complain(f"{path}.{other}", "clashes with username: choose one")
        if destination.get("tls_key") and not destination.get("tls_cert"):
            self.complain(f"{path}.tls_key", "is the key of no tls_cert")
        for setting in ("tls_ca", "tls_cert"):
            if destination.get(setting) and str(destination.get("url")).startswith("http:"):
                self.complain(f"{path}.{setting}", "is not used without https")

    def _names(self, table: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
        """The named tables of an array of tables; a name used twice is a mistake."""
        named: dict[str, dict[str, Any]] = {}
        for item in _list(table.get(section)):
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str):
                if name in named:
                    self.complain(f"{section}[{name}].name", "is used twice")
                named.setdefault(name, item)
        return named


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_signing_secret(text: str) -> bool:
    """Whether it is one of the Standard Webhooks specification, "Signature scheme"."""
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= size <= 64


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - the attribute raises where the port is no number
    except ValueError:
        return False
    plain = not parts.fragment and "@" not in parts.netloc
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain


_KINDS = {
    "address": (_is_address, ADDRESS_ALLOWED),
    "address?": (lambda text: not text or _is_address(text), f'{ADDRESS_ALLOWED}, or ""'),
    "network": (_is_network, 'a network such as "10.0.0.0/8" or "::1/128", or an address'),
    "base url": (
        lambda text: _is_url(text) and "?" not in text,
        'a URL without query: "https://HOST"',
    ),
    "signing secret": (_is_signing_secret, SIGNING_ALLOWED),
    "compression": (
        lambda text: text != "zstd" or importlib.util.find_spec("zstandard") is not None,
        "\"none\", or the package for it: pip install 'pixelfast[zstd]'",
    ),
    "url": (_is_url, 'a URL without user, password and #: "https://HOST/PATH"'),
}


def _structs_of(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [t.cls for t in kinds if isinstance(t, inspect.StructType)]


def _first_text(value: object) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value)


def _choices(kind: inspect.Type) -> list[str]:
    item = kind.item_type if isinstance(kind, inspect.VarTupleType) else kind
    return [str(choice) for choice in item.values] if isinstance(item, inspect.LiteralType) else []


def _allowed(kind: inspect.Type, extra: dict[str, Any]) -> str:
    """Say in words what a type takes.

    >>> _allowed(inspect.IntType(ge=0, le=9), {})
    'a whole number, at least 0, at most 9'
    """
    if isinstance(kind, inspect.LiteralType):
        return _one_of([str(choice) for choice in kind.values])
    if isinstance(kind, inspect.VarTupleType):
        return f"an array [ … ] of: {_allowed(kind.item_type, {})}"
    what = SIZE_ALLOWED if extra.get("unit") == "B" else _WORDS.get(type(kind), "another value")
    bounds = [
        f", {word} {format_bytes(bound) if extra.get('unit') == 'B' else bound}"
        for name, word in _BOUNDS
        if (bound := getattr(kind, name, None)) is not None
    ]
    return what + "".join(bounds)


_BOUNDS = (
    ("ge", "at least"),
    ("gt", "more than"),
    ("le", "at most"),
    ("min_length", "of a length of at least"),
)
_WORDS: dict[type, str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text",
    inspect.DictType: "a table of header names and texts without control characters",
    inspect.DateTimeType: "a date-time with its offset, such as 2027-01-31T00:00:00Z",
}


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(f'"{name}"' for name in names)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def _shown(value: object) -> str:
    """A value as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
