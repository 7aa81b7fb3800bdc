"""Control characters and invisible characters from outside are escaped."""

from __future__ import annotations

import json
import sys
import tomllib
import unicodedata

import pytest

from pixelfast.printable import (
    json_text,
    printable,
    printable_json,
    printable_lines,
    toml_text,
)

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


def unsafe_characters() -> list[str]:
    every = map(chr, range(sys.maxunicode + 1))
    return [char for char in every if unicodedata.category(char) in HIDDEN or char in BLANK]


def test_every_control_format_and_invisible_character_is_escaped() -> None:
    found = unsafe_characters()
    assert len(found) > 2200  # the surrogates are 2,048 of them
    assert [] == [hex(ord(char)) for char in found if not printable(char).startswith("\\")]
    assert [] == [hex(ord(char)) for char in found if not printable(char).isascii()]


def test_visible_characters_are_unchanged() -> None:
    text = "naïve 日本 🎉 👩🏽 ♥️ עברית café C:\\x [red]"
    assert text == printable(text)


def test_escapes_are_visible() -> None:
    assert r"\x1b]0;t\x07\x9b2J\x7f\x0a\x09" == printable("\x1b]0;t\x07\x9b2J\x7f\n\t")
    assert r"\u202e\u2066\u200e\ud800\U000e0041" == printable("\u202e\u2066\u200e\ud800\U000e0041")


def test_only_line_feeds_of_the_program_separate_lines() -> None:
    assert "a\nb\\x0d\\u2028c" == printable_lines("a\nb\r\u2028c")


def test_escaped_json_has_the_same_value() -> None:
    for value in (
        "".join(c for c in unsafe_characters() if not 0xD800 <= ord(c) < 0xE000),
        "\ud800",
    ):
        text = json_text({"event": value, "n": [1, None]})
        assert {"event": value, "n": [1, None]} == json.loads(text)
        assert text == printable(text)


def test_json_lines_stay_lines() -> None:
    lines = '{"a":"\x9b"}\n{"b":"\x7f é"}\n'
    assert '{"a":"\\u009b"}\n{"b":"\\u007f é"}\n' == printable_json(lines)
    plain = '{"a":"\\u001b"}\n'
    assert printable_json(plain) is plain


@pytest.mark.parametrize("value", ["a\x7f\x9b", "\U000e0041", '"\\', "\\x41", "\u202e", "\x1b"])
def test_escaped_toml_has_the_same_value(value: str) -> None:
    text = toml_text(value)
    assert {"v": value} == tomllib.loads(f"v = {text}")
    assert text == printable(text)
