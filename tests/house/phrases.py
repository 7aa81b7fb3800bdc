"""Find the phrases that CONTRIBUTING's words replace: `python -m tests.house.phrases [FILE ...]`.

Without files, all files of the checkout that are under version control are searched.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = {".conf", ".md", ".pxd", ".py", ".pyi", ".pyx", ".service", ".socket", ".toml", ".yml"}
OWN_FILES = {"tests/house/phrases.py", "tests/house/test_phrases.py"}

ALLOWED = (
    r"connections? (?:is |are |was |were |be )?refused\b",
    r"there (?:is|are|was|were) no\b",
    r"(?:is|are|was|were) no (?:longer|more|less|such)\b",
    r"a text (?:file|editor)\b",
)
# Phrases from their first word, and what to write instead. A blank matches any blanks and the mark
# of a comment.
PHRASES = {
    r"(?<![.\"'])refus(?:e|es|ed|al|als|ing)\b(?![\"':=(])": (
        "reject (only a TCP connection is refused)"
    ),
    r"(?:(?:an|its|each|every|their) answer|answer(?:s|ed|ing))\b": "response, respond",
    r"the (?:most|least)(?= (?:is|are|that|to|of|may)\b|[.,;:)])": "maximum, minimum",
    r"at the (?:most|least)\b": "at most, at least",
    r"without:": "Default:",
    r"(?:is|are|was|were) no\b": "is not a",
    r"where there (?:is|are) none\b": "if it does not exist",
    r"(?:start|starts|started|begins?) again\b": "restart",
    r"(?:tried|tries) (?:again|once more)\b": "retry, retried",
    r"(?:first|second|last|next|each|every|many|failed) (?:try|tries)\b": "attempt",
    r"(?:go|goes|went) on\b": "continue",
    r"throw(?:s|n)? away\b": "drop, delete",
    r"a text\b": "a string",
    r"(?:no|more|has|have|makes?|made|is|takes?|needs?) room\b": "disk space, memory",
    r"(?:hang|hangs) on\b": "depend on",
    r"(?:nobody(?= [a-z])|somebody\b|strangers?\b)": "a client, a process, a user",
    r"mend(?:s|ed|ing)?\b": "fix, repair",
    r"but for\b": "except for",
    r"taken out of\b": "removed from",
    r"(?:come|comes|came) again\b": "be repeated",
    r"(?:becomes?|became) of\b": "outcome, result",
    r"befall\b": "happen to",
    r"fared?\b": "outcome",
    r"in good order\b": "cleanly",
    r"is there twice\b": "is duplicated",
    r"is for nobody\b": "requires",
    r"what (?:people|waits|is said)\b": "a noun",
    r"of these there\b": "a sentence that begins with its subject",
    r"very many\b": "many, a high volume of",
    r"that is free\b": "an adjective before the noun",
    r"of no\b": "requires",
    r"no (?:pem|json|toml|utf-8)\b": "not a PEM file",
    r"connections? that waits?\b": "a pending connection",
    r"(?:go|goes|going) the long way\b": "take the slow path",
    r"(?:takes?|taking) (?:pixels|requests|connections)\b": "accept; listen on an address",
    r"tries that\b": "attempts",
    r"over it \d": "a sentence: above it, …",
}


def found_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and replacement of each phrase in a string."""
    for match in _PATTERN.finditer(text.lower()):
        if match.lastindex is not None:  # otherwise it is allowed
            line = text.count("\n", 0, match.start()) + 1
            yield line, match[0], _REPLACEMENTS[match.lastindex - 1]


def questions_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, heading and replacement of each heading of Markdown that is a clause."""
    for match in _HEADING.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield line, match[0], "a noun or a task as the heading"


def main(names: list[str]) -> int:
    """Print each phrase with its place; return 1 if there is one, otherwise 0."""
    code = 0
    for name in names or _versioned():
        path = ROOT / name
        if path.suffix in SUFFIXES and name not in OWN_FILES:
            text = path.read_text("utf-8")
            found = [*found_in(text), *(questions_in(text) if path.suffix == ".md" else ())]
            for line, phrase, replacement in found:
                print(f'{name}:{line}: "{" ".join(phrase.split())}"; write: {replacement}')
                code = 1
    return code


def _versioned() -> list[str]:
    command = ["git", "ls-files"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


# One pattern for all, which takes a tenth of the time of one for each. Its groups are the phrases.
_PATTERN = re.compile(
    rf"\b(?:{'|'.join([*ALLOWED, *(f'({phrase})' for phrase in PHRASES)])})".replace(" ", r"[\s#]+")
)
_REPLACEMENTS = list(PHRASES.values())
_HEADING = re.compile(
    r"^#+ (?:What|Where|Why|How fast|The way|The house|Running it)\b.*", re.MULTILINE
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
