"""docs/log-events.md lists every log event with its level and fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.log_events import Found, log_events

ROW = re.compile(r"^\| `(\w+)` \| ([a-z, ]+) \|([^|]*)\|[^|]+\|[^|]*\|$", re.MULTILINE)
PAGE = (Path(__file__).parents[2] / "docs/log-events.md").read_text("utf-8")
EVENTS = log_events()
# Fields of every event about a destination, a partition, a slot or a process. The page describes
# them once.
COMMON = {"destination", "partition", "slot", "process"}


def documented() -> dict[str, Found]:
    return {
        name: Found(set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)))
        for name, levels, fields in ROW.findall(PAGE)
    }


def test_every_log_event_is_documented_and_no_other() -> None:
    assert set(EVENTS) == set(documented())


@pytest.mark.parametrize("name", EVENTS)
def test_the_level_and_fields_of_a_log_event_are_documented(name: str) -> None:
    found, row = EVENTS[name], documented()[name]
    assert found.levels == row.levels
    assert set() == found.fields - COMMON - row.fields, "not documented"
    assert set() == row.fields - found.fields - found.optional, "documented, but never logged"


@pytest.mark.parametrize("name", EVENTS)
def test_the_name_of_a_log_event_is_in_snake_case(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
