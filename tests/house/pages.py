"""Read the Markdown files of the project: their code blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", "docs", "benchmarks", ".github")
    for path in (ROOT / folder).glob("*.md")
)


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page, with the HTML comments directly before it."""

    page: str
    line: int
    language: str
    text: str
    markers: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def marker(self, name: str) -> str | None:
        """Return the text after `name:` in a comment before the block, or None if there is none."""
        for marker in self.markers:
            key, _, value = marker.partition(":")
            if key.strip() == name:
                return value.strip()
        return None


def blocks(page: str) -> Iterator[Block]:
    """Yield the code blocks of a page in their order."""
    markers: list[str] = []
    for token in _tokens(page):
        if token.type == "html_block":
            markers += re.findall(r"<!--(.*?)-->", token.content, re.DOTALL)
        elif token.type == "fence":
            assert token.map is not None
            language = token.info.partition(" ")[0]
            yield Block(page, token.map[0] + 1, language, token.content, tuple(markers))
            markers = []
        elif token.nesting != -1:
            markers = []


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    tokens = _tokens(page)
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in heading.children or ())
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while (name := f"{anchor}-{number}" if number else anchor) in found:
                number += 1
            found.add(name)
    return found


def links(page: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the target of each link and image of a page."""
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None and token.map is not None:
                yield token.map[0] + 1, str(target)
        if token.type in ("html_block", "inline"):
            for target in re.findall(r'\b(?:href|src|srcset)="([^"]+)"', token.content):
                yield (token.map or [0])[0] + 1, target


@cache
def _tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))
