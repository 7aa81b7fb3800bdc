"""Names in the documentation, such as settings and log events, exist in the program."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.house.pages import PAGES, ROOT

NAME = re.compile(r"`([a-z]+(?:_[a-z0-9]+)+)`")
SUFFIXES = {".conf", ".json", ".pxd", ".py", ".pyx", ".service", ".toml", ".yml"}
OTHERS = {  # made up, names of other programs, or joined at run time
    "http_server",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "reload_ignored",
    "sched_setattr",
    "upgrade_ignored",
    "utm_content",
    "utm_medium",
    "utm_source",
    "utm_term",
    "wk_web",
}


@cache
def program() -> str:
    """Return the source of the package, the benchmarks and the deployment files."""
    paths = [
        path
        for folder in ("pixelfast", "benchmarks", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES
    ]
    return "\n".join(f"{path.name}\n{path.read_text('utf-8')}" for path in paths)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_the_names_on_a_page_are_those_of_the_program(page: str) -> None:
    names = set(NAME.findall((ROOT / page).read_text("utf-8"))) - OTHERS
    # A metric is defined without the program's name and the suffix of counters.
    stems = {name: re.sub(r"^pixelfast_|_total$", "", name) for name in names}
    assert {name for name, stem in stems.items() if stem not in program()} == set()
