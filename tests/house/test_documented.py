"""The reference pages list every error, warning and destination state, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from pixelfast.commands.status import status
from pixelfast.operate.delivery_metrics import STATES
from pixelfast.spool import REJECTIONS

ROOT = Path(__file__).parents[2]
SOURCES = "".join(
    path.read_text("utf-8")
    for folder in ("event", "collect")
    for path in (ROOT / "pixelfast" / folder).glob("*.p[yx]*")
)
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


def test_every_state_of_a_destination_is_documented() -> None:
    page = (ROOT / "docs/monitor.md").read_text("utf-8").partition("### States of a destination")[2]
    states = re.findall(r"^\| `([a-z_]+)` \|", page.partition("\n## ")[0], re.MULTILINE)
    assert set(STATES) == set(states)
    help_states = re.findall(r"^      ([a-z_]+)  ", status.help or "", re.MULTILINE)
    assert {*STATES, "unknown"} == set(help_states)
