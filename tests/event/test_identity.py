"""What counts as invisible is what Unicode says."""

from __future__ import annotations

import sys
import unicodedata

from pixelfast.event.identity import trim, trim_anonymous_id

INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}


def test_the_invisible_characters_are_those_of_unicode() -> None:
    """A character that this interpreter's Unicode does not know may be one of a later one."""
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        category = unicodedata.category(char)
        is_trimmed = trim(f"{char}a{char}") == "a"
        assert (category in INVISIBLE) == is_trimmed or (category == "Cn" and is_trimmed), hex(code)


def test_one_pair_of_quotes_is_taken_off() -> None:
    assert ["a", "", '"', "a b"] == [
        trim_anonymous_id(text) for text in (' "a" ', '""', '"', '\u200b"\ufeffa b\u00a0"')
    ]
