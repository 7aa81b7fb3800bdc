"""Finds the log events in the source of pixelfast: their names, levels and fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pixelfast"
_CALL = re.compile(
    r"\b(?:\w*log(?:ger)?|level|_log|_tell_once|structlog\.get_logger\(.*?\))(?:\.(debug|info|warning|error|exception))?\("
)
_NAME = re.compile(r'"([a-z]+(?:_[a-z]+)+)"')
_FIELD = re.compile(r"(\w+)=[^=]")
_DICT_KEY = re.compile(r'"(\w+)":')
# Names in a variable, by module.
_VARIABLE = {"spool/bounds.py": ("disk_full", "spool_full")}
# The fields that `_tell_once` adds to every event of an archive.
_ARCHIVE_FIELDS = {"folder"}


@dataclass
class Found:
    """A log event, with the levels and fields of all its calls.

    Attributes:
        optional: fields that only some lines of the event have.
    """

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)


def log_events() -> dict[str, Found]:
    """Return all log events by name."""
    found: dict[str, Found] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]):
        for names, call in _calls(path.read_text("utf-8"), str(path.relative_to(PACKAGE))):
            for name in names:
                event = found.setdefault(name, Found())
                event.levels |= call.levels
                event.fields |= call.fields
                event.optional |= call.optional
    return found


def _calls(source: str, path: str) -> Iterator[tuple[tuple[str, ...], Found]]:
    for match in _CALL.finditer(source):
        arguments = _arguments(source, match.end())
        first = arguments[0].strip() if arguments else ""
        names = tuple(_NAME.findall(first))
        if first == "event" and path in _VARIABLE:
            names = _VARIABLE[path]
        is_archive = "_tell_once" in match[0]
        if not names or not (match[1] or is_archive):
            continue
        level = match[1] or ("info" if names == ("archive_deleted",) else "warning")
        fields = {each[1] for text in arguments[1:] if (each := _FIELD.match(text.strip()))}
        optional: set[str] = set()
        if level == "exception" or "exc_info" in fields:
            optional |= {"error", "exception"}  # according to the kind of the error
            level = "error" if level == "exception" else level
        if any(text.strip().startswith("**") for text in arguments[1:]):
            optional |= set(_DICT_KEY.findall(source))
        fields |= _ARCHIVE_FIELDS if is_archive else set()
        yield names, Found({level}, fields - {"exc_info"}, optional)


def _arguments(source: str, start: int) -> list[str]:
    """Return the arguments of a call whose opening parenthesis is before `start`."""
    depth, begin, found, quote = 0, start, [], ""
    for place in range(start, len(source)):
        char = source[place]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}" and depth:
            depth -= 1
        elif char == "," and not depth:
            found.append(source[begin:place])
            begin = place + 1
        elif char == ")":
            found.append(source[begin:place])
            break
    return [each for each in found if each.strip()]
