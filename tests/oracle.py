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
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_TARGET = 32_768  # bytes, §2
MAX_PARAMETERS = 256  # §2
MAX_SEGMENTS = 32  # §2
INDEXES = frozenset(str(number) for number in range(64))  # §3.1
MAX_INTEGER = 2**53 - 1  # §3.2
MAX_DECIMAL_DIGITS = 15  # §3.2

ROUTES = {"/pixel/v1/track": "track", "/pixel/v1/page": "page"}  # §1

SERVER_OWNED = frozenset({"type", "integrations", "rudderId", "request_ip", "receivedAt"})  # §3, 5

# §3.1: always objects, at the root.
OBJECTS = frozenset({"properties", "context", "traits"})

# §3.1: always strings, at the root; the first four are part of the event that is compared.
EVENT_FIELDS = ("anonymousId", "userId", "event", "name")
TIMES = ("originalTimestamp", "sentAt", "timestamp")
FIXED_FIELDS = frozenset({*EVENT_FIELDS, "messageId", "channel", *TIMES})

# §3.2: names that never hold a number; the list is compared with case ignored, the endings exactly.
NEVER_NUMBERS = (
    "id version name title path url referrer search locale timezone ip useragent sku zip zipcode "
    "postalcode postal_code phone email token coupon"
)
NEVER_NUMBERS_ENDINGS = ("Id", "ID", "_id", "_ID")

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


@dataclass(frozen=True)
class Expected:
    """What a request must lead to: the event has none of the server's additions but `type`."""

    status: int
    event: dict[str, Any] | None
    given: dict[str, str]
    warnings: int


def expect(target: str, rules: Rules = Rules(), known: Callable[[str], bool] = bool) -> Expected:
    """The answer to a GET of `target`; `known` says whether a write key is known (§2)."""
    if len(target) > MAX_TARGET:
        return rejected(414)
    path, query = split_target(target)
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
    if any(len(segments) > MAX_SEGMENTS for segments, _ in parameters):
        return rejected(400)
    return finish(ROUTES[path], read(parameters, rules))


def rejected(status: int) -> Expected:
    return Expected(status, event=None, given={}, warnings=0)


# --- §1, §3: from the target to keys and values ---------------------------------------------------


def split_target(target: str) -> tuple[str, str]:
    """Path and query (§1). An absolute-form target loses its scheme and authority."""
    target, _, _ = target.partition("#")
    path, _, query = target.partition("?")
    absolute = re.fullmatch(r"https?://[^/]+(.*)", path, re.IGNORECASE)
    return (absolute[1] if absolute else path), query


def read_parameter(piece: str) -> tuple[list[Segment], str]:
    """§3, 1: the first `=` splits; without `=` the value is empty."""
    key, _, value = piece.partition("=")
    return split_key(decode(key)), decode(value)


def decode(text: str) -> str:
    """§3, 2: `+`, then `%XX`, then UTF-8; U+0000 is removed last."""
    raw = text.replace("+", " ").encode("ascii")
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


def find_write_key(parameters: list[tuple[list[Segment], str]]) -> str:
    """§3, 3: the first one counts, even when it is empty; "" when there is none."""
    for segments, value in parameters:
        if is_single(segments, {"writeKey"}):
            return value
    return ""


def is_single(segments: list[Segment], names: set[str] | frozenset[str]) -> bool:
    """Whether the key is just one of these names."""
    return len(segments) == 1 and segments[0].name in names


# --- §3, §3.1: from keys and values to a tree of places -------------------------------------------


@dataclass
class Place:
    """All that the parameters gave to one place. A gap of an array was given nothing."""

    values: list[Value] = field(default_factory=list)
    container: dict[str, Place] | list[Place] | None = None


@dataclass
class Reading:
    """What was read so far."""

    root: Place = field(default_factory=lambda: Place(container={}))
    fixed: dict[str, str] = field(default_factory=dict)  # the fixed fields, first value of each
    warnings: int = 0  # without those of values that lose their place: `count_lost` finds them


def read(parameters: list[tuple[list[Segment], str]], rules: Rules) -> Reading:
    """Put every parameter into its place; one that is left out with a reason is a warning."""
    reading = Reading()
    for segments, text in parameters:
        if is_single(segments, {"writeKey"} | rules.ignore):
            continue  # §3, 3 and 4: silently
        if not store(reading, segments, text, rules):
            reading.warnings += 1
    return reading


def store(reading: Reading, segments: list[Segment], text: str, rules: Rules) -> bool:
    """Put one parameter into its place; False when it is left out with a warning."""
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
        reading.fixed.setdefault(first, text)  # the first value stays
        return True
    found = find_place(reading.root, segments)
    if found is None:
        return False
    place, last_name = found
    place.values.append(coerce(text, segments, last_name, rules))
    return True


def find_place(root: Place, segments: list[Segment]) -> tuple[Place, str] | None:
    """Walk to a place and make what is missing on the way, by the table of §3.1.

    Returns the place and the nearest name: its own or, for an element of an array, the one above.
    None where an array meets a name; nothing has been changed then, because all that is new on the
    way is made to fit the key, so that only what stood before can turn it down.
    """
    place = root
    last_name = ""
    for depth, segment in enumerate(segments):
        if place.container is None:
            place.container = [] if starts_array(segments, depth) else {}
        if isinstance(place.container, dict):
            place = place.container.setdefault(segment.name, Place())
            last_name = segment.name
        elif segment.is_position:
            slots = place.container
            index = len(slots) if segment.is_append else int(segment.name)
            while len(slots) <= index:
                slots.append(Place())
            place = slots[index]
        else:
            return None
    return place, last_name


def starts_array(segments: list[Segment], depth: int) -> bool:
    """Whether a new container that holds `segments[depth]` is an array (§3.1)."""
    if depth == 1 and segments[0].name in OBJECTS:
        return False
    return segments[depth].is_position


# --- §3.2: numbers and booleans -------------------------------------------------------------------


def coerce(text: str, segments: list[Segment], last_name: str, rules: Rules) -> Value:
    """The value that `text` becomes in its place."""
    joined = ".".join(segment.name for segment in segments if not segment.is_position)
    if joined in rules.strings:
        return text
    coercible = len(segments) > 1 and not is_never_number(last_name)
    if joined in rules.force_numbers or (rules.numbers and coercible):
        number = to_number(text)
        if number is not None:
            return number
    if rules.booleans and coercible and text in ("true", "false"):
        return text == "true"
    return text


def is_never_number(name: str) -> bool:
    return name.lower() in NEVER_NUMBERS.split() or name.endswith(NEVER_NUMBERS_ENDINGS)


def to_number(text: str) -> int | float | None:
    """The number that `text` is, if a double carries it without loss."""
    digits = sum(char in "0123456789" for char in text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        if text == "-0" or digits > len(str(MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
            return None
        return int(text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", text) and digits <= MAX_DECIMAL_DIGITS:
        return float(text)
    return None


# --- §3.1, §3.3, §4: from the places to the event -------------------------------------------------


def finish(type_: str, reading: Reading) -> Expected:
    """Check what is required (§3.3) and put the event together (§4)."""
    warnings = reading.warnings + count_lost(reading.root)
    fixed = reading.fixed
    given: dict[str, str] = {}
    for name in TIMES:
        if name in fixed:
            if is_date_time(fixed[name]):
                given[name] = fixed[name]
            else:
                warnings += 1
    if message_id := trim(fixed.get("messageId", "")):
        given["messageId"] = message_id
    if "channel" in fixed:
        given["channel"] = fixed["channel"]

    fields: dict[str, Any] = {"type": type_}
    user_id = trim(fixed.get("userId", ""))
    anonymous_id = trim(without_quotes(trim(fixed.get("anonymousId", ""))))
    if not user_id and not anonymous_id:
        return rejected(400)
    if user_id:
        fields["userId"] = user_id
    if anonymous_id:
        fields["anonymousId"] = anonymous_id
    if type_ == "track" and not trim(fixed.get("event", "")):
        return rejected(400)
    if "event" in fixed:
        fields["event"] = fixed["event"]
    if "name" in fixed:
        unknown = type_ == "page" and fixed["name"] == ""
        fields["name"] = "Unknown Page" if unknown else fixed["name"]
    fields.update(to_json(reading.root))

    event = {name: fields[name] for name in LEADING_FIELDS if name in fields}
    event.update(fields)  # a name that is there keeps its position
    return Expected(200, event, given, warnings)


def to_json(place: Place) -> Any:
    """§3.1: the object or array wins, else the first value stays; a gap is null."""
    if isinstance(place.container, dict):
        return {name: to_json(member) for name, member in place.container.items()}
    if isinstance(place.container, list):
        return [to_json(slot) for slot in place.container]
    return place.values[0] if place.values else None


def count_lost(place: Place) -> int:
    """§3.1: every value given to a place where an object or array stands is one warning."""
    if place.container is None:
        return 0
    inner = place.container.values() if isinstance(place.container, dict) else place.container
    return len(place.values) + sum(count_lost(member) for member in inner)


def trim(text: str) -> str:
    """§3.3: without white space and invisible characters at both ends."""
    while text and is_invisible(text[0]):
        text = text[1:]
    while text and is_invisible(text[-1]):
        text = text[:-1]
    return text


def is_invisible(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp")


def without_quotes(text: str) -> str:
    """§3.3: without one pair of surrounding double quotes."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def is_date_time(text: str) -> bool:
    """§4: an RFC 3339 date-time (its section 5.6)."""
    match = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
        r"[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
        r"(?:[Zz]|[+-]([0-9]{2}):([0-9]{2}))",
        text,
    )
    if match is None:
        return False
    year, month, day, hour, minute, second, *offset = (int(part or "0") for part in match.groups())
    is_date = 1 <= month <= 12 and 1 <= day <= days_of(year, month)
    is_time = hour <= 23 and minute <= 59 and second <= 60
    return is_date and is_time and offset[0] <= 23 and offset[1] <= 59


def days_of(year: int, month: int) -> int:
    if month == 2:
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if is_leap else 28
    return 30 if month in (4, 6, 9, 11) else 31
