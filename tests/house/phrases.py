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
NOT_YET = ("benchmarks/", "pixelfast/", "tests/")

ALLOWED = (
    r"\bconnections? (?:is |are |was |were |be )?refused\b",
    r"\bthere (?:is|are|was|were) no\b",
    r"\b(?:is|are|was|were) no (?:longer|more|less)\b",
    r"\ba text (?:file|editor)\b",
)
# What to find, and what to write instead. A blank matches any blanks and the mark of a comment.
PHRASES = {
    r"\brefus(?:e|es|ed|al|als|ing)\b": ("reject (only a TCP connection is refused)"),
    r"\b(?:an|its|each|every|their) answers?\b": "response",
    r"\bthe (?:most|least)(?= (?:is|are|that|to|of|may)\b|[.,;:)])": "maximum, minimum",
    r"\bat the (?:most|least)\b": "at most, at least",
    r"\bwithout:": "Default:",
    r"\b(?:is|are|was|were) no\b": "is not a",
    r"\bwhere there (?:is|are) none\b": "if it does not exist",
    r"\b(?:start|starts|started|begins?) again\b": "restart",
    r"\b(?:tried|tries) (?:again|once more)\b": "retry, retried",
    r"\b(?:first|second|last|next|each|every|many|failed) (?:try|tries)\b": "attempt",
    r"\b(?:go|goes|went) on\b": "continue",
    r"\bthrow(?:s|n)? away\b": "drop, delete",
    r"\ba text\b": "a string",
    r"\broom\b": "disk space, memory",
    r"\b(?:hang|hangs) on\b": "depend on",
    r"\b(?:nobody|somebody|strangers?)\b": "a client, a process, a user",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\bbut for\b": "except for",
    r"\btaken out of\b": "removed from",
    r"\b(?:come|comes|came) again\b": "be repeated",
    r"\b(?:becomes?|became) of\b": "outcome, result",
    r"\bbefall\b": "happen to",
    r"\bfared?\b": "outcome",
    r"\bin good order\b": "cleanly",
    r"\bis there twice\b": "is duplicated",
    r"\bis for nobody\b": "requires",
    r"\bwhat (?:people|waits|is said)\b": "a noun",
    r"(?m:^#+\x20)(?:what|where|how fast|why)\b.*": "a noun or a task as the heading",
}


def found_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, phrase and replacement of each phrase in a text."""
    text = _ALLOWED.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), text.lower())
    for phrase, replacement in _PHRASES.items():
        for match in phrase.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, match[0], replacement


def main(names: list[str]) -> int:
    """Print each phrase with its place; return 1 if there is one, otherwise 0."""
    code = 0
    for name in names or _versioned():
        path = ROOT / name
        if path.suffix in SUFFIXES and name not in OWN_FILES and not name.startswith(NOT_YET):
            for line, phrase, replacement in found_in(path.read_text("utf-8")):
                print(f'{name}:{line}: "{" ".join(phrase.split())}"; write: {replacement}')
                code = 1
    return code


def _versioned() -> list[str]:
    command = ["git", "ls-files"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def _compiled(phrase: str) -> re.Pattern[str]:
    return re.compile(phrase.replace(" ", r"[\s#]+"))


_PHRASES = {_compiled(phrase): replacement for phrase, replacement in PHRASES.items()}
_ALLOWED = _compiled("|".join(ALLOWED))

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
