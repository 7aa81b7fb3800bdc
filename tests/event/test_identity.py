"""The invisible characters are those of the Unicode database."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from pixelfast.event import EventWriter, Rules
from tests.event.writing import write

INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
# Surrogates are invalid in UTF-8, U+0000 is removed from every value, and characters that this
# interpreter's Unicode version does not know may be invisible in a later one.
CHARACTERS = [
    char
    for char in map(chr, range(1, sys.maxunicode + 1))
    if unicodedata.category(char) not in {"Cn", "Cs"}
]


NAMES = ("userId", "anonymousId", "messageId")


def trimmed(writer: EventWriter, values: Sequence[str]) -> list[str]:
    """Return the user, anonymous and message id of an event with these values."""
    query = "&".join(
        f"{name}={quote(value, safe='')}" for name, value in zip(NAMES, values, strict=True)
    )
    event = json.loads(write(writer, query.encode(), Rules())[0])
    return [event.get(name, "") for name in NAMES]


def test_a_visible_character_is_kept_at_both_ends() -> None:
    """Each one is at the start of one identifier and at the end of another."""
    writer = EventWriter()
    visible = [char for char in CHARACTERS if unicodedata.category(char) not in INVISIBLE]
    assert len(visible) > 280_000
    visible += visible[: 3 - len(visible) % 3 + 1]
    for n in range(0, len(visible) - 3, 3):
        values = [f"{visible[i]}a{visible[i + 1]}" for i in range(n, n + 3)]
        assert values == trimmed(writer, values)


def test_an_invisible_character_is_trimmed_at_both_ends() -> None:
    writer = EventWriter()
    invisible = [char for char in CHARACTERS if unicodedata.category(char) in INVISIBLE]
    assert len(invisible) > 200
    for char in invisible:
        assert ["a", "a", "a"] == trimmed(writer, [f"{char}a{char}"] * 3), hex(ord(char))
    around = "".join(invisible)
    assert ["a", "a", "a"] == trimmed(writer, [f"{around}a{around}"] * 3)


def test_one_pair_of_quotes_is_removed() -> None:
    writer = EventWriter()
    assert ["a", "", '"', "a b"] == [
        trimmed(writer, ["u", value, "m"])[1]
        for value in (' "a" ', '""', '"', '\u200b"\ufeffa b\u00a0"')
    ]
