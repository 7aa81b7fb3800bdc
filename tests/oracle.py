"""The pixel dialect once more: slow, in plain Python, written from its specification alone.

The property tests hold the fast decoder against `expect`. Nothing here is tuned: each rule of the
dialect is one small function that cites its section.

A request is read in two steps. First every parameter is put into a tree of places, where a place
remembers both the values and the container it was given. Only when all parameters have been read
is the tree turned into JSON. So "the first value stays" and "the object or array wins, whatever
the order" (§3.1) need no bookkeeping while reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.oracle_texts import (
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
    """What a source can change (§3, §3.2)."""

    numbers: bool = True
    booleans: bool = False
    strings: frozenset[str] = frozenset()
    force_numbers: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset({"_", "z", "cb", "rand"})
    keeps_placeholders: bool = False


@dataclass(frozen=True)
class Expected:
    """What a request must lead to: the event has none of the server's additions but `type`."""

    status: int
    event: dict[str, Any] | None
    given: dict[str, str]
    warnings: list[str]  # the keys of what was left out, as they were sent, in any order


def expect(target: str, rules: Rules = Rules(), known: Callable[[str], bool] = bool) -> Expected:
    """The answer to a GET of `target`; `known` says whether a write key is known (§2)."""
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
    """Path and query (§1). An absolute-form target loses its scheme and authority."""
    target, _, _ = target.partition("#")
    path, _, query = target.partition("?")
    absolute = re.fullmatch(r"https?://[^/]+(.*)", path, re.IGNORECASE)
    return (absolute[1] if absolute else path), query


def plain_path(path: str) -> str:
    """§1: a path as it is compared: unreserved decoded, slashes collapsed, its end cut."""

    def decoded(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if UNRESERVED.fullmatch(char) else match[0]

    path = re.sub("%([0-9A-Fa-f]{2})", decoded, path)
    path = re.sub("/+", "/", path)
    return path.removesuffix(".gif") if path.endswith(".gif") else path.removesuffix("/")


@dataclass(frozen=True)
class Parameter:
    """One pair of the query."""

    key: str  # as it was sent
    segments: list[Segment]
    text: str
    sent: str  # the value as it was sent
    is_escaped: bool  # its `&` was HTML-escaped twice


def read_parameter(piece: str) -> Parameter:
    """§3, 1: the first `=` splits; without `=` the value is empty. §3, 3: `amp;` is removed."""
    key, _, value = piece.partition("=")
    name = trim(decode(key))
    is_escaped = name[:4].lower() == "amp;"
    while name[:4].lower() == "amp;":
        name = trim(name[4:])
    return Parameter(key, split_key(name), decode(value), value, is_escaped)


def decode(text: str) -> str:
    """§3, 2: `+`, then `%XX`, then UTF-8; U+0000 is removed last."""
    raw = text.replace("+", " ").encode("utf-8", "surrogateescape")
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), raw)
    return raw.decode("utf-8", errors="replace").replace("\0", "")


@dataclass(frozen=True)
class Segment:
    """One part of a key (§3.1), its escapes resolved."""

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
        """Made for an array, though at an object it is a name like any other."""
        return self.is_index or self.is_append


def split_key(key: str) -> list[Segment]:
    """§3.1: split a decoded key at its dots and resolve its escapes."""
    segments = []
    name, plain = "", False
    at = 0
    while at < len(key):
        char = key[at]
        if char == ".":
            segments.append(Segment(name, plain))
            name, plain = "", False
        elif char == "\\" and at + 1 < len(key):  # at the very end it stands for itself
            at += 1
            name += key[at]
            plain = True
        elif char == ":" and not name and not plain:  # leading, and only one of them
            plain = True
        else:
            name += char
        at += 1
    segments.append(Segment(name, plain))
    return segments


def find_write_key(parameters: list[Parameter]) -> str:
    """§3, 3: the first that is not blank, trimmed; "" when there is none."""
    for parameter in parameters:
        if is_single(parameter.segments, {"writeKey"}) and trim(parameter.text):
            return trim(parameter.text)
    return ""


def is_single(segments: list[Segment], names: set[str] | frozenset[str]) -> bool:
    """Whether the key is just one of these names."""
    return len(segments) == 1 and segments[0].name in names


# --- §3, §3.1: from keys and values to a tree of places -------------------------------------------


@dataclass
class Place:
    """All that the parameters gave to one place. A gap of an array was given nothing."""

    values: list[Value] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # beside the values, as they were sent
    # Keys of the values after the first of a name such as `a[]`: who sends it expects an array.
    repeats: list[str] = field(default_factory=list)
    container: dict[str, Place] | list[Place] | None = None


@dataclass
class Reading:
    """What was read so far."""

    root: Place = field(default_factory=lambda: Place(container={}))
    # The fixed fields: all values of each, decoded and as they were sent, with the key as sent.
    fixed: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    # Keys of what is left out, without the values that lose their place: `find_lost` has those.
    warnings: list[str] = field(default_factory=list)


def read(parameters: list[Parameter], rules: Rules) -> Reading:
    """Put every parameter into its place; one that is left out with a reason is a warning."""
    reading = Reading()
    for parameter in parameters:
        if parameter.is_escaped:
            reading.warnings.append(parameter.key)
        if is_single(parameter.segments, {"writeKey"} | rules.ignore):
            continue  # §3, 3 and 4: silently
        if not store(reading, parameter, rules):
            reading.warnings.append(parameter.key)
    return reading


def store(reading: Reading, parameter: Parameter, rules: Rules) -> bool:
    """Put one parameter into its place; False when it is left out with a warning."""
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
        value = (parameter.text, parameter.sent, parameter.key)
        reading.fixed.setdefault(first, []).append(value)
        return True
    found = find_place(reading.root, segments)
    if found is None:
        return False
    place, names = found
    if place.values and any("[]" in each.name for each in segments):
        place.repeats.append(parameter.key)
    place.values.append(coerce(parameter.text, segments, names, rules))
    place.keys.append(parameter.key)
    return True


def find_place(root: Place, segments: list[Segment]) -> tuple[Place, list[str]] | None:
    """Walk to a place and make what is missing on the way, by the table of §3.1.

    Returns the place and the names on the way to it, without the indexes of arrays. None where an
    array meets a name; nothing has been changed then, because all that is new on the way is made
    to fit the key, so that only what stood before can turn it down.
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
    """Whether a new container that holds `segments[depth]` is an array (§3.1)."""
    if depth == 1 and segments[0].name in OBJECTS:
        return False
    return segments[depth].is_position


# --- §3.2: numbers and booleans -------------------------------------------------------------------


def coerce(text: str, segments: list[Segment], names: list[str], rules: Rules) -> Value:
    """The value that `text` becomes in its place; the last of `names` is the nearest one."""
    joined = ".".join(names)
    if joined in rules.strings:
        return text
    coercible = len(segments) > 1 and not is_never_number(names[-1])
    if joined in rules.force_numbers or (rules.numbers and coercible):
        number = to_number(text)
        if number is not None:
            return number
    if rules.booleans and coercible and text in ("true", "false"):
        return text == "true"
    return text


# --- §3.1, §3.3, §4: from the places to the event -------------------------------------------------


def finish(type_: str, reading: Reading, rules: Rules) -> Expected:
    """Check what is required (§3.3) and put the event together (§4)."""
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
    for text, _, _ in fixed.get("channel", []):
        if trim(text):
            given.setdefault("channel", text)

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
    event.update(fields)  # a name that is there keeps its position
    return Expected(200, event, given, warnings)


def first_trimmed(fixed: dict[str, list[tuple[str, str, str]]], name: str) -> str:
    """§3.1, §3.3: the first value that is not blank, trimmed; "" if there is none."""
    return next((trim(text) for text, _, _ in fixed.get(name, []) if trim(text)), "")


def find_identity(
    name: str, values: list[tuple[str, str, str]], rules: Rules
) -> tuple[str, list[str]]:
    """§3.3: the first usable value of an id, and the keys of the placeholders passed over."""
    placeholders = []
    for text, sent, key in values:
        identity = trim(text)
        if name == "anonymousId":
            identity = trim(without_quotes(identity))
        if not identity:
            continue
        if rules.keeps_placeholders or not is_placeholder(identity, sent):
            return identity, placeholders
        placeholders.append(key)
    return "", placeholders


def find_time(values: list[tuple[str, str, str]]) -> tuple[str | None, list[str]]:
    """§4: the first value that is a time, and the keys of those passed over that are not.

    An empty one is passed over silently, unless there is no other (§3.1).
    """
    wrong = [key for text, _, key in values[:1] if all(not trim(each) for each, _, _ in values)]
    for text, _, key in values:
        if (time := date_time(text)) is not None:
            return time, wrong
        if trim(text):
            wrong.append(key)
    return None, wrong


def to_json(place: Place) -> Any:
    """§3.1: the object or array wins, else the first value stays; a gap is null."""
    if isinstance(place.container, dict):
        return {name: to_json(member) for name, member in place.container.items()}
    if isinstance(place.container, list):
        return [to_json(slot) for slot in place.container]
    return place.values[0] if place.values else None


def find_lost(place: Place) -> list[str]:
    """§3.1: every value given to a place where an object or array stands is one warning.

    So is every value but the first of a name that ends in `[]`: the one case where §3.1 is not
    silent about the values that it leaves out.
    """
    if place.container is None:
        return place.repeats
    inner = place.container.values() if isinstance(place.container, dict) else place.container
    return place.keys + [key for member in inner for key in find_lost(member)]
