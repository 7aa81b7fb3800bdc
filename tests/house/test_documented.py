"""docs/pixel.md lists every warning and every error of the package event."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = "".join(
    path.read_text("utf-8")
    for folder in ("event", "collect")
    for path in (ROOT / "pixelfast" / folder).glob("*.p[yx]*")
)
DOCUMENT = (ROOT / "docs/pixel.md").read_text("utf-8")


def test_every_warning_is_documented_and_no_other() -> None:
    table = DOCUMENT.partition("### Warnings")[2].partition("\n##")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    found = re.findall(r'(?:_warn\(\s*|_INVALID_MESSAGE_ID = \[\()"([a-z-]+)"', SOURCES)
    assert set(found) == set(documented)


def test_every_error_is_documented() -> None:
    found = set(re.findall(r'(?:RequestError\(\s*|_error\(\s*)4\d\d,\s*"([a-z-]+)"', SOURCES))
    assert "placeholder-identity" in found
    assert {reason for reason in found if f"`{reason}`" not in DOCUMENT} == set()
