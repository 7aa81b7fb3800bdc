"""The reference pages list every error, warning and destination state, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pixelfast.commands.status import status
from pixelfast.operate.delivery_metrics import STATES
from pixelfast.spool import REJECTIONS

ROOT = Path(__file__).parents[2]
SOURCES = "".join(
    path.read_text("utf-8")
    for folder in ("event", "collect")
    for path in (ROOT / "pixelfast" / folder).glob("*.p[yx]*")
)
# Literals of the whole package, with those that are split over lines joined.
MESSAGES = re.sub(
    r'"\n\s*f?"',
    "",
    "".join(path.read_text("utf-8") for path in (ROOT / "pixelfast").rglob("*.py")),
)
OF_THE_SYSTEM = {"Connection refused", "Network is unreachable"}
PIXEL = (ROOT / "docs/pixel.md").read_text("utf-8")


def section(page: str, heading: str) -> str:
    return (ROOT / "docs" / page).read_text("utf-8").partition(heading)[2].partition("\n## ")[0]


def warnings_in_source() -> set[str]:
    return set(re.findall(r'(?:_warn\(\s*|_INVALID_MESSAGE_ID = \[\()"([a-z-]+)"', SOURCES))


def errors_in_source() -> set[tuple[str, int]]:
    raised = re.findall(r'(?:RequestError|_error|__init__)\(\s*([45]\d\d),\s*"([a-z-]+)"', SOURCES)
    constants = re.findall(r'^cdef str (NOT_FOUND|NOT_STORED) = "([a-z-]+)"', SOURCES, re.MULTILINE)
    statuses = {"NOT_FOUND": 404, "NOT_STORED": 503}
    return (
        {(reason, int(status)) for status, reason in raised}
        | {(reason, statuses[name]) for name, reason in constants}
        | {(reason, 503) for reason in REJECTIONS.values()}
    )


def test_warnings_md_lists_every_warning_and_no_other() -> None:
    table = section("warnings.md", "## Warnings about pixels")
    assert warnings_in_source() == set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))


def test_pixel_md_lists_every_error() -> None:
    reasons = {reason for reason, _ in errors_in_source()} - {"internal-error"}
    assert set() == {reason for reason in reasons if f"`{reason}`" not in PIXEL}


def test_errors_md_lists_every_error_with_its_status_and_no_other() -> None:
    table = section("errors.md", "## Rejected requests")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", table, re.MULTILINE)
    assert errors_in_source() == {(reason, int(status)) for reason, status in rows}
    assert ("method-not-allowed", 405) in errors_in_source()


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("errors.md", "## Errors in the settings"),
        ("errors.md", "## Failed deliveries"),
        ("warnings.md", "## Warnings about the settings"),
    ],
)
def test_every_message_on_a_page_is_one_of_the_program(page: str, heading: str) -> None:
    """`…` and `N` stand for values; messages of the operating system are not the program's."""
    table = section(page, heading)
    messages = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
    assert messages
    parts = {
        part.strip()
        for message in re.findall("`([^`]+)`", " ".join(messages))
        for part in re.split(r"…|\bN+\b( s\b)?|\[|\]", message)
        if part and part.strip(' :"')
    }
    assert set() == {part for part in parts if part not in MESSAGES} - OF_THE_SYSTEM


def test_every_state_of_a_destination_is_documented() -> None:
    page = (ROOT / "docs/monitor.md").read_text("utf-8").partition("### States of a destination")[2]
    states = re.findall(r"^\| `([a-z_]+)` \|", page.partition("\n## ")[0], re.MULTILINE)
    assert {*STATES, "unknown"} == set(states)
    help_states = re.findall(r"^ +([a-z_]+)  ", status.help or "", re.MULTILINE)
    assert {*STATES, "unknown"} == set(help_states)
