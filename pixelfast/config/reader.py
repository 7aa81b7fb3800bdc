"""Reads a TOML file into a `Config`, or reports all its errors at once.

The structs of `schema` are the only description of the allowed settings: this module walks them
along with the tables of the file. A string may contain ``${NAME}``, a value of the environment
(``$${`` is a literal ``${``); ``{ file = "/path" }`` in place of a string reads it from a file,
without the line feeds at its end. The settings file may begin with a byte order mark, as editors on
Windows write it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from pixelfast.config.clashes import clashes
from pixelfast.config.schema import Config, WriteKey, unwrap
from pixelfast.config.strings import STRING_KINDS
from pixelfast.config.tables import INVALID, Table
from pixelfast.config.units import SIZE_ALLOWED, format_bytes, parse_bytes
from pixelfast.config.words import allowed, nearest, one_of, shown, without_secrets
from pixelfast.errors import ConfigError, ConfigErrors

__all__ = ["config_from_table", "read_config", "read_data_dir"]

_NO_FILE = "command line"
_LACKING: Any = object()  # a string whose variable or file is missing, which is allowed
_VARIABLE = re.compile(r"\$?\$\{([^}]*)\}")
# The maxima of fields without one of their own: what fits into the integers of compiled code, and
# about 30 years.
_MAX_INTEGER = 2**62
_MAX_FLOAT = 1e9


def read_config(
    path: str | Path | None,
    overrides: Mapping[str, object] | None = None,
    *,
    may_lack: tuple[str, ...] = (),
) -> Config:
    """Read a settings file; return the defaults if `path` is None.

    Args:
        path: the settings file.
        overrides: values that replace those of the file: {"server.listen": ["127.0.0.1:0"]}.
        may_lack: sections such as "destinations" in which variables and files of secrets may be
            missing, for commands that do not use them. A string that refers to a missing one has
            its default, or is empty.

    Raises:
        ConfigErrors: all errors of the file, each with key, value, allowed values and the most
            similar name.
    """
    table = {} if path is None else _read_table(Path(path))
    for dotted, value in (overrides or {}).items():
        *sections, name = dotted.split(".")
        place: Any = table
        for section in sections:
            place = place.setdefault(section, {})
        if isinstance(place, dict):  # otherwise the reader reports it
            place[name] = value
    return config_from_table(table, _NO_FILE if path is None else str(path), may_lack=may_lack)


def read_data_dir(path: str | Path | None) -> str:
    """Read only `data_dir` from a settings file; ignore errors of other settings.

    Raises:
        ConfigErrors: the file is not TOML, or `data_dir` is not valid.
    """
    table = {} if path is None else _read_table(Path(path))
    own = {name: value for name, value in table.items() if name == "data_dir"}
    return config_from_table(own, _NO_FILE if path is None else str(path)).data_dir


def _read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        what = f"is not valid TOML: {error}"
    raise ConfigErrors(str(path), [ConfigError(str(path), None, what)])


def config_from_table(
    table: dict[str, Any], path: str = "settings", *, may_lack: tuple[str, ...] = ()
) -> Config:
    """Convert the tables of a settings file into a `Config`.

    >>> config_from_table({"server": {"workers": 2}}).server.workers
    2

    Raises:
        ConfigErrors: all errors; `path` is the name of the file in the message.
    """
    reader = _Reader(may_lack)
    config = reader.struct(Config, table, "")
    reader.problems += clashes(reader.tables, has_file=path != _NO_FILE)
    if reader.problems:
        raise ConfigErrors(path, reader.problems)
    assert isinstance(config, Config)
    return config


class _Reader:
    """Walks the structs of the schema along with the tables of the file, and collects errors."""

    def __init__(self, may_lack: tuple[str, ...] = ()) -> None:
        self.problems: list[ConfigError] = []
        self.tables: list[Table] = []
        self._may_lack = may_lack

    def reject(
        self,
        key: str,
        value: object,
        expected: str,
        nearest: str | None = None,
        *,
        secret: bool = False,
    ) -> Any:
        """Report a value that is not allowed."""
        text = "(hidden)" if secret else shown(value)
        self.report(key, f"expected {expected}", nearest, value=text)
        return INVALID

    def report(
        self, key: str, problem: str, nearest: str | None = None, *, value: str | None = None
    ) -> Any:
        """Report any other error."""
        self.problems.append(ConfigError(key, value, problem, nearest=nearest))
        return INVALID

    def struct(self, cls: type[msgspec.Struct], table: object, path: str) -> Any:
        """Read a table into `cls`; check every field and report every unknown key."""
        if not isinstance(table, dict):
            return self.reject(path, table, "a table")
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        prefix = f"{path}." if path else ""
        values: dict[str, Any] = {}
        for name, value in table.items():
            if name == cls.__struct_config__.tag_field:
                continue
            if name not in fields:
                self.report(prefix + name, "unknown setting", nearest(name, fields))
                continue
            values[name] = self.field(fields[name].type, value, prefix + name)
        missing = [n for n, field in fields.items() if field.required and n not in table]
        for name in missing:
            self.report(prefix + name, "required setting is missing")
        lacking = [name for name, value in values.items() if value is _LACKING]
        self.tables.append(Table(path, cls, values | dict.fromkeys(lacking, INVALID)))
        if missing or any(value is INVALID for value in values.values()):
            return INVALID
        for name in lacking:
            if fields[name].required:
                values[name] = ""
            else:
                del values[name]
        return cls(**values)

    def field(self, annotation: Any, value: object, path: str) -> Any:
        """Read a field: a table, an array of tables, an array, or a plain value."""
        kind, extra = unwrap(annotation)
        if isinstance(kind, inspect.StructType):
            return self.struct(kind.cls, value, path)
        if isinstance(kind, inspect.VarTupleType):
            structs = _structs_of(kind.item_type)
            if structs:
                return self.structs(structs, kind.min_length or 0, value, path)
            if isinstance(value, list):
                return self.items(annotation, kind, extra, value, path)
        if isinstance(kind, inspect.DictType) and isinstance(value, dict):
            return self.mapping(annotation, extra, value, path)
        return self.plain(annotation, extra, value, path)

    def structs(
        self, structs: list[type[msgspec.Struct]], least: int, value: object, path: str
    ) -> Any:
        """Read an array of tables, each of which is one of `structs`."""
        if not isinstance(value, list):
            secret = structs == [WriteKey] and isinstance(value, str)
            what = (
                f"an array of tables: [[{path}]]" if isinstance(value, dict) else "an array [ … ]"
            )
            return self.reject(path, value, what, secret=secret)
        if len(value) < least:
            return self.reject(path, value, f"an array with at least {least} item")
        items = []
        for place, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            known_as = name if name and isinstance(name, str) else place
            items.append(self.choose(structs, item, f"{path}[{known_as}]"))
        return INVALID if INVALID in items else tuple(items)

    def choose(self, structs: list[type[msgspec.Struct]], value: object, path: str) -> Any:
        """Read a table; its `type` selects one of several structs."""
        if structs == [WriteKey] and not isinstance(value, dict):
            if not isinstance(value, str):
                return self.reject(path, value, "a string, or a table { key = … }", secret=True)
            value = {"key": value}
        if len(structs) == 1 or not isinstance(value, dict):
            return self.struct(structs[0], value, path)
        kinds = {str(cls.__struct_config__.tag): cls for cls in structs}
        tag = value.get("type")
        if isinstance(tag, str) and tag in kinds:
            return self.struct(kinds[tag], value, path)
        # Keep the name, so that references to it are not reported as well.
        name = value.get("name")
        self.tables.append(Table(path, msgspec.Struct, {"name": name} if name else {}))
        if tag is None:
            return self.report(
                f"{path}.type", f"required setting is missing; expected {one_of(kinds)}"
            )
        return self.reject(f"{path}.type", tag, one_of(kinds), nearest(tag, kinds))

    def items(
        self,
        annotation: Any,
        kind: inspect.VarTupleType,
        extra: dict[str, Any],
        value: list[object],
        path: str,
    ) -> Any:
        """Read an array of plain values, and report errors of each."""
        if len(value) < (kind.min_length or 0):
            return self.reject(path, value, f"an array with at least {kind.min_length} item")
        if kind.max_length is not None and len(value) > kind.max_length:
            known = STRING_KINDS.get(extra.get("kind", ""))
            what = f"an array with at most {kind.max_length} items"
            what += f", each {known.allowed}" if known else ""
            return self.reject(path, value, what, secret=bool(extra.get("secret")))
        inner = _inner_annotations(annotation)[0]
        items = [
            self.plain(inner, extra, item, f"{path}[{place}]") for place, item in enumerate(value)
        ]
        return (
            INVALID if INVALID in items else tuple(each for each in items if each is not _LACKING)
        )

    def mapping(
        self, annotation: Any, extra: dict[str, Any], value: dict[str, object], path: str
    ) -> Any:
        """Read a table with arbitrary names."""
        of_names, of_values = _inner_annotations(annotation)
        items = {
            self.plain(of_names, {}, name, f"name in {path}"): self.plain(
                of_values, extra, text, f"{path}.{name}"
            )
            for name, text in value.items()
        }
        if INVALID in items or INVALID in items.values():
            return INVALID
        return {name: value for name, value in items.items() if value is not _LACKING}

    def plain(self, annotation: Any, outer_extra: dict[str, Any], value: object, path: str) -> Any:
        """Read a plain value: check its type and range, then its kind of string."""
        kind, extra = unwrap(annotation)
        extra |= outer_extra
        secret = bool(extra.get("secret"))
        if isinstance(kind, inspect.StrType | inspect.LiteralType):
            value = self.resolve(value, path, secret=secret)
            if value is INVALID:
                return value
            if value is _LACKING:
                return value
        size = value
        if extra.get("unit") == "B" and isinstance(value, str):
            try:
                size = parse_bytes(value)
            except ValueError:
                return self.reject(path, value, SIZE_ALLOWED)
        what = allowed(kind, extra)
        try:
            checked = msgspec.convert(size, annotation)
        except (msgspec.ValidationError, OverflowError):
            similar = nearest(value, extra.get("choices", ()))
            return self.reject(path, value, what, similar, secret=secret)
        if isinstance(checked, int) and checked > _MAX_INTEGER:
            most = format_bytes(_MAX_INTEGER) if extra.get("unit") == "B" else _MAX_INTEGER
            return self.reject(path, value, f"{what}, at most {most}")
        if isinstance(checked, float) and not checked <= _MAX_FLOAT:  # or NaN
            return self.reject(path, value, f"{what}, at most {_MAX_FLOAT:.0f}")
        string_kind = STRING_KINDS.get(extra.get("kind", ""))
        if string_kind and isinstance(checked, str) and not string_kind.is_valid(checked):
            if "url" in extra["kind"]:
                checked = without_secrets(checked, is_url=True)
            return self.reject(path, checked, string_kind.allowed, secret=secret)
        return checked

    def resolve(self, value: object, path: str, *, secret: bool = False) -> Any:
        """Replace `${NAME}` and `{ file = … }` by their values."""
        if isinstance(value, dict):
            if list(value) != ["file"] or not isinstance(value["file"], str):
                return self.reject(path, value, 'a string, or { file = "/path" }', secret=secret)
            try:
                return Path(value["file"]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the file's name
                if path.startswith(self._may_lack):
                    return _LACKING
                why = getattr(error, "strerror", None) or str(error)
                return self.report(path, f"cannot read the file: {why}", value=shown(value["file"]))
        if not isinstance(value, str):
            return value
        for match in _VARIABLE.finditer(value):
            if not match[0].startswith("$$") and match[1] not in os.environ:
                if path.startswith(self._may_lack):
                    return _LACKING
                text = "(hidden)" if secret else shown(value)
                return self.report(
                    path, f"the environment variable {match[1]} is not set", value=text
                )
        text = _VARIABLE.sub(
            lambda match: match[0][1:] if match[0].startswith("$$") else os.environ[match[1]], value
        )
        if not _is_utf8(text):
            return self.reject(path, None, "a string in valid UTF-8", secret=True)
        return text


def _is_utf8(text: str) -> bool:
    """Return False for bytes of the environment or the command line that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _structs_of(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [t.cls for t in kinds if isinstance(t, inspect.StructType)]


def _inner_annotations(annotation: Any) -> tuple[Any, ...]:
    """Return the type arguments of a tuple or dict, without its `Annotated` and `| None`."""
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation = arguments[0]
        elif get_origin(annotation) in {Union, UnionType}:
            annotation = next(each for each in arguments if each is not NoneType)
        else:
            return arguments
