"""From a TOML file to a `Config`, or to the list of all its mistakes at once.

The structs of `schema` are the only description of what is allowed: this module walks them beside
the file's tables. Texts may hold ``${NAME}``, a value from the environment (``$${`` is a plain
``${``); where a text is wanted, ``{ file = "/path" }`` takes it from a file, without its last
newline. The file may begin with a byte order mark, as Windows' editors write it.
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

from pixelfast.config.clashes import INVALID, Table, clashes
from pixelfast.config.schema import Config, WriteKey, unwrap
from pixelfast.config.texts import TEXTS
from pixelfast.config.units import SIZE_ALLOWED, format_bytes, parse_bytes
from pixelfast.config.words import allowed, choices, nearest, one_of, shown, without_secrets
from pixelfast.errors import ConfigError, ConfigErrors

__all__ = ["config_from_table", "read_config", "read_data_dir"]

_NO_FILE = "command line"
_LACKING: Any = object()  # stands for a string whose parts are not there, and may be missing
_VARIABLE = re.compile(r"\$?\$\{([^}]*)\}")
# Where a field says nothing less: what fits the integers of compiled code, and ~30 years.
_MOST_WHOLE = 2**62
_MOST_FRACTIONAL = 1e9


def read_config(
    path: str | Path | None,
    overrides: Mapping[str, object] | None = None,
    *,
    may_lack: tuple[str, ...] = (),
) -> Config:
    """Read a settings file; without one, the defaults.

    `overrides` replace what the file says: {"server.listen": ["127.0.0.1:0"]}. `may_lack`:
    sections such as "destinations", whose `${NAME}` and `{ file = … }` may be missing here, for
    commands that do not use them. A string that needs one has its default, or is empty.

    Raises:
        ConfigErrors: with every mistake of the file: key, value, what is allowed, nearest name.
    """
    table = {} if path is None else _read_table(Path(path))
    for dotted, value in (overrides or {}).items():
        *sections, name = dotted.split(".")
        place: Any = table
        for section in sections:
            place = place.setdefault(section, {})
        if isinstance(place, dict):  # if not, the reader says so
            place[name] = value
    return config_from_table(table, _NO_FILE if path is None else str(path), may_lack=may_lack)


def read_data_dir(path: str | Path | None) -> str:
    """Read the data directory alone from a settings file, whose other settings may have mistakes.

    Raises:
        ConfigErrors: it can't be read.
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
    """Turn the tables of a settings file into a `Config`.

    >>> config_from_table({"server": {"workers": 2}}).server.workers
    2

    Raises:
        ConfigErrors: with every mistake; `path` names the file in its message.
    """
    reader = _Reader(may_lack)
    config = reader.struct(Config, table, "")
    reader.problems += clashes(reader.tables, has_file=path != _NO_FILE)
    if reader.problems:
        raise ConfigErrors(path, reader.problems)
    assert isinstance(config, Config)
    return config


class _Reader:
    """Walks the structs of the schema beside the tables of the file and collects what is wrong."""

    def __init__(self, may_lack: tuple[str, ...] = ()) -> None:
        self.problems: list[ConfigError] = []
        self.tables: list[Table] = []
        self._may_lack = may_lack

    def refuse(
        self,
        key: str,
        value: object,
        what: str,
        nearest: str | None = None,
        *,
        secret: bool = False,
    ) -> Any:
        text = "(hidden)" if secret else shown(value)
        self.problems.append(ConfigError(key, text, what, nearest=nearest))
        return INVALID

    def complain(self, key: str, what: str, nearest: str | None = None) -> Any:
        self.problems.append(ConfigError(key, None, what, nearest=nearest))
        return INVALID

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
                self.complain(prefix + name, "no such setting", nearest(name, fields))
                continue
            values[name] = self.field(fields[name].type, value, prefix + name)
        missing = [n for n, field in fields.items() if field.required and n not in table]
        for name in missing:
            self.complain(prefix + name, "is missing")
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
        """Read one field: a table, an array of tables, an array, or a plain value."""
        kind, extra = unwrap(inspect.type_info(annotation))
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
        """Read an array of tables, each of them one of `structs`."""
        if not isinstance(value, list):
            secret = structs == [WriteKey] and isinstance(value, str)
            what = (
                f"an array of tables, [[{path}]]" if isinstance(value, dict) else "an array [ … ]"
            )
            return self.refuse(path, value, what, secret=secret)
        if len(value) < least:
            return self.refuse(path, value, f"an array with at least {least} item")
        items = []
        for place, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            known_as = name if name and isinstance(name, str) else place
            items.append(self.choose(structs, item, f"{path}[{known_as}]"))
        return INVALID if INVALID in items else tuple(items)

    def choose(self, structs: list[type[msgspec.Struct]], value: object, path: str) -> Any:
        """Read one table; where there is a choice, its `type` makes it."""
        if structs == [WriteKey] and not isinstance(value, dict):
            if not isinstance(value, str):
                return self.refuse(path, value, "a key, or a table { key = … }", secret=True)
            value = {"key": value}
        if len(structs) == 1 or not isinstance(value, dict):
            return self.struct(structs[0], value, path)
        kinds = {str(cls.__struct_config__.tag): cls for cls in structs}
        tag = value.get("type")
        if isinstance(tag, str) and tag in kinds:
            return self.struct(kinds[tag], value, path)
        # Its name is a name all the same, for those who refer to it.
        name = value.get("name")
        self.tables.append(Table(path, msgspec.Struct, {"name": name} if name else {}))
        if tag is None:
            return self.complain(f"{path}.type", f"is missing: {one_of(kinds)}")
        return self.refuse(f"{path}.type", tag, one_of(kinds), nearest(tag, kinds))

    def items(
        self,
        annotation: Any,
        kind: inspect.VarTupleType,
        extra: dict[str, Any],
        value: list[object],
        path: str,
    ) -> Any:
        """Read an array of plain values, each for itself."""
        if len(value) < (kind.min_length or 0):
            return self.refuse(path, value, f"an array with at least {kind.min_length} item")
        if kind.max_length is not None and len(value) > kind.max_length:
            known = TEXTS.get(extra.get("kind", ""))
            what = f"at most {kind.max_length}" + (f", each {known.allowed}" if known else "")
            return self.refuse(path, value, what, secret=bool(extra.get("secret")))
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
        """Read a table of names that are not known beforehand."""
        of_names, of_values = _inner_annotations(annotation)
        items = {
            self.plain(of_names, {}, name, f"a name in {path}"): self.plain(
                of_values, extra, text, f"{path}.{name}"
            )
            for name, text in value.items()
        }
        if INVALID in items or INVALID in items.values():
            return INVALID
        return {name: value for name, value in items.items() if value is not _LACKING}

    def plain(self, annotation: Any, outer_extra: dict[str, Any], value: object, path: str) -> Any:
        """Check one value without others inside: its type and bounds, then its kind of text."""
        kind, extra = unwrap(inspect.type_info(annotation))
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
                return self.refuse(path, value, SIZE_ALLOWED)
        what = allowed(kind, extra)
        try:
            checked = msgspec.convert(size, annotation)
        except (msgspec.ValidationError, OverflowError):
            return self.refuse(path, value, what, nearest(value, choices(kind)), secret=secret)
        if isinstance(checked, int) and checked > _MOST_WHOLE:
            most = format_bytes(_MOST_WHOLE) if extra.get("unit") == "B" else _MOST_WHOLE
            return self.refuse(path, value, f"{what}, at most {most}")
        if isinstance(checked, float) and not checked <= _MOST_FRACTIONAL:  # nor nan
            return self.refuse(path, value, f"{what}, at most {_MOST_FRACTIONAL:.0f}")
        text_kind = TEXTS.get(extra.get("kind", ""))
        if text_kind and isinstance(checked, str) and not text_kind.is_right(checked):
            if "url" in extra["kind"]:
                checked = without_secrets(checked, is_url=True)
            return self.refuse(path, checked, text_kind.allowed, secret=secret)
        return checked

    def resolve(self, value: object, path: str, *, secret: bool = False) -> Any:
        """Put in what `${NAME}` and `{ file = … }` stand for."""
        if isinstance(value, dict):
            if list(value) != ["file"] or not isinstance(value["file"], str):
                return self.refuse(path, value, 'a string, or { file = "/path" }', secret=secret)
            try:
                return Path(value["file"]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:  # no UTF-8 in it, or NUL in its name
                if path.startswith(self._may_lack):
                    return _LACKING
                return self.refuse(path, value["file"], f"a file that can be read ({error})")
        if not isinstance(value, str):
            return value
        for match in _VARIABLE.finditer(value):
            if not match[0].startswith("$$") and match[1] not in os.environ:
                if path.startswith(self._may_lack):
                    return _LACKING
                what = f"the environment variable {match[1]} to be set"
                return self.refuse(path, value, what, secret=secret)
        text = _VARIABLE.sub(
            lambda match: match[0][1:] if match[0].startswith("$$") else os.environ[match[1]], value
        )
        if not _is_utf8(text):
            return self.refuse(path, None, "a string in UTF-8", secret=True)
        return text


def _is_utf8(text: str) -> bool:
    """False for bytes of the environment or the command line that Python could not decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _structs_of(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [t.cls for t in kinds if isinstance(t, inspect.StructType)]


def _inner_annotations(annotation: Any) -> tuple[Any, ...]:
    """What stands in the brackets of a tuple or dict, its `Annotated` and `| None` taken off."""
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation = arguments[0]
        elif get_origin(annotation) in {Union, UnionType}:
            annotation = next(each for each in arguments if each is not NoneType)
        else:
            return arguments
