"""What counts as invisible is what Unicode says."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from pixelfast.event import EventWriter, Rules
from tests.event.writing import write

INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
# A surrogate can't stand in UTF-8, U+0000 is left out of every value, and a character that this
# interpreter's Unicode does not know may be one of a later one, invisible or not.
CHARACTERS = [
    char
    for char in map(chr, range(1, sys.maxunicode + 1))
    if unicodedata.category(char) not in {"Cn", "Cs"}
]


NAMES = ("userId", "anonymousId", "messageId")


def trimmed(writer: EventWriter, values: Sequence[str]) -> list[str]:
    """What the values become as user, anonymous and message id."""
    query = "&".join(
        f"{name}={quote(value, safe='')}" for name, value in zip(NAMES, values, strict=True)
    )
    event = json.loads(write(writer, query.encode(), Rules())[0])
    return [event.get(name, "") for name in NAMES]


def test_a_visible_character_stays_at_both_ends() -> None:
    """Each stands at the start of one identifier and at the end of another one."""
    writer = EventWriter()
    visible = [char for char in CHARACTERS if unicodedata.category(char) not in INVISIBLE]
    assert len(visible) > 280_000
    visible += visible[: 3 - len(visible) % 3 + 1]
    for n in range(0, len(visible) - 3, 3):
        values = [f"{visible[i]}a{visible[i + 1]}" for i in range(n, n + 3)]
        assert values == trimmed(writer, values)


def test_an_invisible_character_is_taken_off_at_both_ends() -> None:
    writer = EventWriter()
    invisible = [char for char in CHARACTERS if unicodedata.category(char) in INVISIBLE]
    assert len(invisible) > 200
    for char in invisible:
        assert ["a", "a", "a"] == trimmed(writer, [f"{char}a{char}"] * 3), hex(ord(char))
    around = "".join(invisible)
    assert ["a", "a", "a"] == trimmed(writer, [f"{around}a{around}"] * 3)


def test_one_pair_of_quotes_is_taken_off() -> None:
    writer = EventWriter()
    assert ["a", "", '"', "a b"] == [
        trimmed(writer, ["u", text, "m"])[1]
        for text in (' "a" ', '""', '"', '\u200b"\ufeffa b\u00a0"')
    ]
