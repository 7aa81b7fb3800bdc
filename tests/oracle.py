"""A second implementation of the pixel dialect: slow, in plain Python, from the specification
alone.

The property tests compare the fast decoder with `expect`. Each rule of the dialect is one small
function that cites its section; nothing is optimized.

A request is read in two steps. First, every parameter is put into a tree of places. A place
remembers both the values and the container that it was given. Second, after all parameters have
been read, the tree is converted to JSON. Therefore "the first value stays" and "the object or array
wins, whatever the order" (§3.1) need no bookkeeping while reading."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.oracle_strings import (
    date_time,
    is_never_number,
    is_placeholder,
    to_number,
    trim,
    without_quotes,
)

MAX_TARGET = 32_768  # bytes, §2
MAX_PARAMETERS = 256  # §2
MAX_SEGMENTS = 32  # §2
INDEXES = frozenset(str(number) for number in range(64))  # §3.1

ROUTES = {"/pixel/v1/track": "track", "/pixel/v1/page": "page"}  # §1
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")  # RFC 3986 section 2.3

SERVER_OWNED = frozenset({"type", "integrations", "rudderId", "request_ip", "receivedAt"})  # §3, 5

# §3.1: always objects, at the root.
OBJECTS = frozenset({"properties", "context", "traits"})

# §3.1: always strings, at the root; the first four are part of the event that is compared.
EVENT_FIELDS = ("anonymousId", "userId", "event", "name")
TIMES = ("originalTimestamp", "sentAt", "timestamp")
FIXED_FIELDS = frozenset({*EVENT_FIELDS, "messageId", "channel", *TIMES})

# §4: the fields that lead the event, in this order; the rest follow as they first appear.
LEADING_FIELDS = ("type", *EVENT_FIELDS, "properties", "context")

Value = str | int | float | bool


@dataclass(frozen=True)
class Rules:
    """The rules that a source can change (§3, §3.2)."""

    numbers: bool = True
    booleans: bool = False
    strings: frozenset[str] = frozenset()
    force_numbers: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset({"_", "z", "cb", "rand"})
    keeps_placeholders: bool = False


@dataclass(frozen=True)
class Expected:
    """The expected outcome of a request; the only addition of the server in the event is `type`."""

    status: int
    event: dict[str, Any] | None
    given: dict[str, str]
    warnings: list[str]  # keys of the warnings, as sent, in any order


def expect(target: str, rules: Rules = Rules(), known: Callable[[str], bool] = bool) -> Expected:
    """Return the outcome of a GET of `target`; `known` tells whether a write key is known (§2)."""
    if len(target.encode("utf-8", "surrogateescape")) > MAX_TARGET:
        return rejected(414)
    path, query = split_target(target)
    path = plain_path(path)
    if path not in ROUTES:
        return rejected(404)
    pieces = [piece for piece in query.split("&") if piece]  # §3, 1: empty pieces are skipped
    if len(pieces) > MAX_PARAMETERS:
        return rejected(400)
    parameters = [read_parameter(piece) for piece in pieces]
    write_key = find_write_key(parameters)
    if not write_key:
        return rejected(400)
    if not known(write_key):
        return rejected(401)
    if any(len(each.segments) > MAX_SEGMENTS for each in parameters):
        return rejected(400)
    return finish(ROUTES[path], read(parameters, rules), rules)


def rejected(status: int) -> Expected:
    return Expected(status, event=None, given={}, warnings=[])


# --- §1, §3: from the target to keys and values ---------------------------------------------------


def split_target(target: str) -> tuple[str, str]:
    """Return path and query (§1), without scheme and authority of the absolute form."""
    target, _, _ = target.partition("#")
    path, _, query = target.partition("?")
    absolute = re.fullmatch(r"https?://[^/]+(.*)", path, re.IGNORECASE)
    return (absolute[1] if absolute else path), query


def plain_path(path: str) -> str:
    """Normalize a path (§1): decode unreserved characters, collapse slashes, trim the end."""

    def decoded(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if UNRESERVED.fullmatch(char) else match[0]

    path = re.sub("%([0-9A-Fa-f]{2})", decoded, path)
    path = re.sub("/+", "/", path)
    return path.removesuffix(".gif") if path.endswith(".gif") else path.removesuffix("/")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the query."""

    key: str  # as it was sent
    segments: list[Segment]
    value: str
    sent: str  # the value as it was sent
    is_escaped: bool  # its `&` was HTML-escaped twice


def read_parameter(piece: str) -> Parameter:
    """Split at the first `=` (§3, 1); without `=` the value is empty. Remove `amp;` (§3, 3)."""
    key, _, value = piece.partition("=")
    name = trim(decode(key))
    is_escaped = name[:4].lower() == "amp;"
    while name[:4].lower() == "amp;":
        name = trim(name[4:])
    return Parameter(key, split_key(name), decode(value), value, is_escaped)


def decode(string: str) -> str:
    """Decode `+`, then `%XX`, then UTF-8; remove U+0000 last (§3, 2)."""
    raw = string.replace("+", " ").encode("utf-8", "surrogateescape")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), raw)
    return raw.decode("utf-8", errors="replace").replace("\0", "")


@dataclass(frozen=True)
class Segment:
    """One segment of a key (§3.1), with its escapes resolved."""

    name: str
    plain: bool  # written with a backslash or a leading ":", so never an index

    @property
    def is_append(self) -> bool:
        return not self.plain and self.name == "-1"

    @property
    def is_index(self) -> bool:
        return not self.plain and self.name in INDEXES

    @property
    def is_position(self) -> bool:
        """Whether it is a position in an array; in an object it is an ordinary name."""
        return self.is_index or self.is_append


def split_key(key: str) -> list[Segment]:
    """Split a decoded key at its dots and resolve its escapes (§3.1)."""
    segments = []
    name, plain = "", False
    at = 0
    while at < len(key):
        char = key[at]
        if char == ".":
            segments.append(Segment(name, plain))
            name, plain = "", False
        elif char == "\\" and at + 1 < len(key):  # a backslash at the very end is literal
            at += 1
            name += key[at]
            plain = True
        elif char == ":" and not name and not plain:  # only one leading colon
            plain = True
        else:
            name += char
        at += 1
    segments.append(Segment(name, plain))
    return segments


def find_write_key(parameters: list[Parameter]) -> str:
    """Return the first write key that is not blank, trimmed, or "" (§3, 3)."""
    for parameter in parameters:
        if is_single(parameter.segments, {"writeKey"}) and trim(parameter.value):
            return trim(parameter.value)
    return ""


def is_single(segments: list[Segment], names: set[str] | frozenset[str]) -> bool:
    """Return whether the key is exactly one of these names."""
    return len(segments) == 1 and segments[0].name in names


# --- §3, §3.1: from keys and values to a tree of places -------------------------------------------


@dataclass
class Place:
    """Everything that parameters gave to one place. A gap in an array was given nothing."""

    values: list[Value] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # of the values, as sent
    # Keys of the values after the first of a name such as `a[]`, whose sender expects an array.
    repeats: list[str] = field(default_factory=list)
    container: dict[str, Place] | list[Place] | None = None


@dataclass
class Reading:
    """The state while parameters are read."""

    root: Place = field(default_factory=lambda: Place(container={}))
    # All values of each fixed field, decoded and as sent, and the keys as sent.
    fixed: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    # Keys of dropped parameters, except displaced values, which `find_lost` finds.
    warnings: list[str] = field(default_factory=list)


def read(parameters: list[Parameter], rules: Rules) -> Reading:
    """Put every parameter into its place; a dropped parameter is a warning."""
    reading = Reading()
    for parameter in parameters:
        if parameter.is_escaped:
            reading.warnings.append(parameter.key)
        if is_single(parameter.segments, {"writeKey"} | rules.ignore):
            continue  # dropped without a warning (§3, 3 and 4)
        if not store(reading, parameter, rules):
            reading.warnings.append(parameter.key)
    return reading


def store(reading: Reading, parameter: Parameter, rules: Rules) -> bool:
    """Put one parameter into its place, or return False if it is dropped with a warning."""
    segments = parameter.segments
    first = segments[0].name
    if any(not segment.name for segment in segments):
        return False  # §3.1: an empty segment
    if first in SERVER_OWNED or first == "writeKey":
        return False  # §3, 5: nested or not; §3, 3: a writeKey with further segments
    if is_single(segments, OBJECTS):
        return False  # §3.1: an object given a plain value
    if first in FIXED_FIELDS:
        if len(segments) > 1:
            return False  # §3.1: a string given further segments
        value = (parameter.value, parameter.sent, parameter.key)
        reading.fixed.setdefault(first, []).append(value)
        return True
    found = find_place(reading.root, segments)
    if found is None:
        return False
    place, names = found
    if place.values and any("[]" in each.name for each in segments):
        place.repeats.append(parameter.key)
    place.values.append(coerce(parameter.value, segments, names, rules))
    place.keys.append(parameter.key)
    return True


def find_place(root: Place, segments: list[Segment]) -> tuple[Place, list[str]] | None:
    """Find a place and create missing ones on the way, by the table of §3.1.

    Return the place and the names on the way to it, without array indexes, or None if an array
    meets a name. Nothing was created in that case: new places always fit the key, so only an
    existing one can reject it.
    """
    place = root
    names = []
    for depth, segment in enumerate(segments):
        if place.container is None:
            place.container = [] if starts_array(segments, depth) else {}
        if isinstance(place.container, dict):
            place = place.container.setdefault(segment.name, Place())
            names.append(segment.name)
        elif segment.is_position:
            slots = place.container
            index = len(slots) if segment.is_append else int(segment.name)
            while len(slots) <= index:
                slots.append(Place())
            place = slots[index]
        else:
            return None
    return place, names


def starts_array(segments: list[Segment], depth: int) -> bool:
    """Return whether a new container for `segments[depth]` is an array (§3.1)."""
    if depth == 1 and segments[0].name in OBJECTS:
        return False
    return segments[depth].is_position


# --- §3.2: numbers and booleans -------------------------------------------------------------------


def coerce(string: str, segments: list[Segment], names: list[str], rules: Rules) -> Value:
    """Convert a string to the value of its place; the last of `names` is the nearest one."""
    joined = ".".join(names)
    if joined in rules.strings:
        return string
    coercible = len(segments) > 1 and not is_never_number(names[-1])
    if joined in rules.force_numbers or (rules.numbers and coercible):
        number = to_number(string)
        if number is not None:
            return number
    if rules.booleans and coercible and string in ("true", "false"):
        return string == "true"
    return string


# --- §3.1, §3.3, §4: from the places to the event -------------------------------------------------


def finish(type_: str, reading: Reading, rules: Rules) -> Expected:
    """Check required fields (§3.3) and assemble the event (§4)."""
    warnings = reading.warnings + find_lost(reading.root)
    fixed = reading.fixed
    given: dict[str, str] = {}
    for name in TIMES:
        time, wrong = find_time(fixed.get(name, []))
        warnings += wrong
        if time is not None:
            given[name] = time
    if message_id := first_trimmed(fixed, "messageId"):
        given["messageId"] = message_id
    for value, _, _ in fixed.get("channel", []):
        if trim(value):
            given.setdefault("channel", value)

    fields: dict[str, Any] = {"type": type_}
    for name in ("anonymousId", "userId"):
        identity, placeholders = find_identity(name, fixed.get(name, []), rules)
        warnings += placeholders
        if identity:
            fields[name] = identity
    if "userId" not in fields and "anonymousId" not in fields:
        return rejected(400)
    event_name = first_trimmed(fixed, "event")
    if type_ == "track" and not event_name:
        return rejected(400)
    if "event" in fixed:
        fields["event"] = event_name
    if "name" in fixed:
        fields["name"] = first_trimmed(fixed, "name")
        if type_ == "page" and not fields["name"]:
            fields["name"] = "Unknown Page"
    fields.update(to_json(reading.root))

    event = {name: fields[name] for name in LEADING_FIELDS if name in fields}
    event.update(fields)  # existing names keep their position
    return Expected(200, event, given, warnings)


def first_trimmed(fixed: dict[str, list[tuple[str, str, str]]], name: str) -> str:
    """Return the first value that is not blank, trimmed, or "" (§3.1, §3.3)."""
    return next((trim(value) for value, _, _ in fixed.get(name, []) if trim(value)), "")


def find_identity(
    name: str, values: list[tuple[str, str, str]], rules: Rules
) -> tuple[str, list[str]]:
    """Return the first usable value of an id, and the keys of skipped placeholders (§3.3)."""
    placeholders: list[str] = []
    for value, sent, key in values:
        identity = trim(value)
        if name == "anonymousId":
            identity = trim(without_quotes(identity))
        if not identity:
            continue
        if rules.keeps_placeholders or not is_placeholder(identity, sent):
            return identity, placeholders
        placeholders.append(key)
    return "", placeholders


def find_time(values: list[tuple[str, str, str]]) -> tuple[str | None, list[str]]:
    """Return the first value that is a time, and the keys of skipped values that are not (§4).

    Empty values are skipped without a warning, unless there is no other value (§3.1).
    """
    wrong = [key for value, _, key in values[:1] if all(not trim(each) for each, _, _ in values)]
    for value, _, key in values:
        if (time := date_time(value)) is not None:
            return time, wrong
        if trim(value):
            wrong.append(key)
    return None, wrong


def to_json(place: Place) -> Any:
    """Convert a place to JSON: a container wins over values, the first value counts (§3.1)."""
    if isinstance(place.container, dict):
        return {name: to_json(member) for name, member in place.container.items()}
    if isinstance(place.container, list):
        return [to_json(slot) for slot in place.container]
    return place.values[0] if place.values else None


def find_lost(place: Place) -> list[str]:
    """Return the keys of all values that an object or array displaces (§3.1).

    If there is no container, return the keys of repeated values of names with `[]`, the only
    repeated values that cause warnings.
    """
    if place.container is None:
        return place.repeats
    inner = place.container.values() if isinstance(place.container, dict) else place.container
    return place.keys + [key for member in inner for key in find_lost(member)]
