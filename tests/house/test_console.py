"""Console blocks are split into commands, and outputs are compared except for what varies."""

from __future__ import annotations

import pytest

from tests.house.console import Command, commands


def test_a_block_is_split_at_its_prompts() -> None:
    block = "$ ls\na\nb\n# id\n$ curl -s \\\n    http://192.0.2.1/\n"
    block += "$ cat <<'END'\n$ no prompt\nEND\nx\n"
    assert [
        Command("ls", "a\nb\n"),
        Command("id", ""),
        Command("curl -s \\\n    http://192.0.2.1/", ""),
        Command("cat <<'END'\n$ no prompt\nEND", "x\n"),
    ] == commands(block)


def test_output_before_the_first_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="'a' comes before the first prompt"):
        commands("a\n$ ls\n")


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        ("a  b\n", "a b"),
        ('{"a":\n1}', '{"a":1}'),
        ("all: …\n", "all: 1 2 3\n"),
        ("…\nlast\n", "first\nsecond\nlast\n"),
        ("id 01a202c0-f64b-7d0c-b6a7-80ab1947b455", "id 11a202c0-f64b-7d0c-b6a7-80ab1947b456"),
        ("2026-11-23T10:15:30.123Z", "2027-01-02T00:00:00Z"),
        ("Date: Mon, 23 Nov 2026 10:15:30 GMT", "Date: Tue, 01 Dec 2026 00:00:00 GMT"),
        ("key wk_demo_abc", "key wk_demo_xyz09"),
    ],
)
def test_output_that_differs_only_in_variable_parts_is_accepted(expected: str, output: str) -> None:
    assert Command("x", expected).matches(output)


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        ("a b\n", "a c\n"),
        ("a\n", "a\nb\n"),
        ("all: …!\n", "all: 1 2 3\n"),
        ("a.c\n", "abc\n"),
        ("2026-11-23T10:15:30.123Z", "today"),
        ("key wk_demo_abc", "key demo"),
    ],
)
def test_other_output_is_wrong(expected: str, output: str) -> None:
    assert not Command("x", expected).matches(output)
