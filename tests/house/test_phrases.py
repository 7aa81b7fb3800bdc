"""The phrase check finds each phrase on its list, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import phrases
from tests.house.phrases import PHRASES, found_in, main, questions_in

EXAMPLES = """\
The request is refused.
It got an answer.
The limit is the most that is kept.
2 s at the most
Without: the first key
It is no address.
where there is none
The process starts again.
The batch is tried again.
the first try
Delivery goes on.
Events are thrown away.
The value is a text.
until there is room
It hangs on the value.
It is open, and nobody listens.
whether it is mended
the same but for the date
A key was taken out of the settings.
The event came again.
what became of it
what may befall a pixel
how the batch fared
It was closed in good order.
The name is there twice.
It is for nobody without a name.
What people type
for very many tiny requests
a connection that waits
It goes the long way.
0.1.0 takes pixels at 127.0.0.1:8080
expected an address that is free
It is the key of no certificate.
The file is no PEM file, or no PEM
Tries that failed
the wait for the disk; over it 503
of these there are:
"""
LEGITIMATE = """\
curl: (7) Connection refused
New connections are refused during a restart.
There is no token in the file, and it is no longer read.
Open it in a text editor.
Restart the server, and retry the request.
The header is not a PEM file, and no address is free.
## Request lifecycle
"""


def test_each_phrase_is_found() -> None:
    found = {replacement for line in EXAMPLES.splitlines() for _, _, replacement in found_in(line)}
    assert set(PHRASES.values()) == found
    assert [] == [line for line in EXAMPLES.splitlines() if not list(found_in(line))]


@pytest.mark.parametrize(
    "heading",
    [
        "What is kept",
        "Why it is built like this",
        "The way of one pixel",
        "The house",
        "Running it",
    ],
)
def test_a_heading_that_is_a_clause_or_a_riddle_is_found(heading: str) -> None:
    text = f"# Events\n\n## {heading}\n"
    assert [(3, f"## {heading}", "a noun or a task as the heading")] == list(questions_in(text))


def test_legitimate_uses_are_not_found() -> None:
    assert [] == list(found_in(LEGITIMATE))


def test_a_phrase_is_found_across_the_lines_of_a_comment() -> None:
    assert [(1, "goes\n    # on", "continue")] == list(
        found_in("x = 1  # Delivery goes\n    # on.\n")
    )


def test_a_file_with_a_phrase_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phrases, "ROOT", tmp_path)
    (tmp_path / "good.md").write_text("A request was rejected.\n")
    (tmp_path / "bad.md").write_text("A request\nwas refused.\n")
    (tmp_path / "bad.png").write_text("refused\n")
    assert 0 == main(["good.md", "bad.png"])
    assert 1 == main(["good.md", "bad.md"])
    assert capsys.readouterr().out == (
        'bad.md:2: "refused"; write: reject (only a TCP connection is refused)\n'
    )
