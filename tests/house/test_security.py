"""The limits in docs/security.md are those of the program, and their tests exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import fields

from pixelfast.config import Config, FileDestination, HttpDestination, Source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
UNITS = {
    "": 1,
    "bytes": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "s": 1,
    "hour": 3600,
    "hours": 3600,
    "days": 86_400,
    "%": 0.01,
}
EVENT, COLLECT = "event/limits.pxd", "collect/limits.pxd"
BOUNDS = "deliver/http/bounds.py"
FIXED = {
    "request target": (EVENT, "MAX_TARGET_BYTES"),
    "headers together": (COLLECT, "MAX_HEADER_BYTES"),
    "number of headers": (COLLECT, "MAX_HEADERS"),
    "body": (COLLECT, "MAX_BODY_BYTES"),
    "framing of a chunked body": (COLLECT, "MAX_FRAMING_BYTES"),
    "parameters": (EVENT, "MAX_PARAMETERS"),
    "segments of a name": (EVENT, "MAX_SEGMENTS"),
    "index of an array": (EVENT, "MAX_INDEX"),
    "elements of arrays together": (EVENT, "MAX_ARRAY_SLOTS"),
    "event as JSON": (EVENT, "MAX_EVENT_BYTES"),
    "unsent responses of a connection": (COLLECT, "MAX_RESPONSE_BYTES"),
    "log lines per second for each reason of rejection": ("collect/rejections.py", "_INTERVAL_S"),
    "body of a response": ("deliver/http/sender.py", "max_response_bytes"),
    "head and framing of a response": (BOUNDS, "_MAX_HEAD_BYTES"),
    "interim responses (1xx)": (BOUNDS, "_MAX_INTERIM"),
    "CPU time for responses beyond their first 512 bytes, as a share of delivery's": (
        BOUNDS,
        "_SHARE",
    ),
    "part of a response that is kept": ("deliver/http/responses.py", "KEPT_BYTES"),
    "`Retry-After`": ("deliver/retry.py", "_MAX_RETRY_AFTER_S"),
}


class Limit(NamedTuple):
    name: str
    value: float
    setting: str
    test: str


def quantity(text: str) -> float:
    """Return the number of "32,768 bytes" or "10 s"; 0 is the setting for "unlimited"."""
    if text == "unlimited":
        return 0
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * UNITS[unit]


LIMITS = [
    Limit(name, quantity(value), setting.strip("`"), test)
    for name, value, setting, test in re.findall(
        r"^\| (.+?) \| (.+?) \| (fixed|`[\w.]+`) \| [^|]+ \| `(tests/[\w/]+\.py)` \|$",
        PAGE,
        re.MULTILINE,
    )
]


def constant(module: str, name: str) -> float:
    """Return a constant that a module defines by numbers and its other constants."""
    text = (ROOT / "pixelfast" / module).read_text("utf-8")
    definition = re.search(rf"^\s*{name}(?:: \w+)? = ([^#\n]+?),?\s*(?:#.*)?$", text, re.MULTILINE)
    assert definition is not None, f"{module} has no {name}"
    expression = re.sub(r"[A-Z_]{2,}", lambda other: str(constant(module, other[0])), definition[1])
    return float(eval(expression, {"__builtins__": {}}))  # noqa: S307 - our own source


def default(setting: str) -> Any:
    """Return the default of a setting of a table."""
    table, _, name = setting.partition(".")
    if table in {"sources", "destinations"}:
        kinds: list[type[Any]]
        kinds = [Source] if table == "sources" else [HttpDestination, FileDestination]
        return next(each.default for kind in kinds for each in fields(kind) if each.name == name)
    return getattr(getattr(Config(), table), name)


def test_the_page_has_a_table_for_each_side() -> None:
    assert {limit.name for limit in LIMITS if limit.setting == "fixed"} == set(FIXED)
    assert len([limit for limit in LIMITS if limit.setting != "fixed"]) > 12
    assert LIMITS[0].name in PAGE.partition("## Limits on requests")[2]
    assert LIMITS[-1].name in PAGE.partition("## Misbehaving destinations")[2]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_documented_limit_has_the_value_of_the_program(limit: Limit) -> None:
    if limit.setting == "fixed":
        assert constant(*FIXED[limit.name]) == limit.value
    else:
        assert default(limit.setting) == limit.value


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))), ids=lambda path: path
)
def test_a_test_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()
