"""Settings and hooks of all tests."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("short", settings.get_profile("default"), max_examples=50)
settings.register_profile("long", settings.get_profile("default"))
settings.register_profile(  # does not look for the smallest example
    "first-failure",
    settings.get_profile("default"),
    phases=set(Phase) - {Phase.shrink, Phase.explain},
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Else each of the programs that tests start would compile every Python module again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

VECTORS = [
    json.loads(line)
    for line in Path(__file__).with_name("vectors.jsonl").read_text(encoding="utf-8").splitlines()
]


# Folders with tests that start programs and wait for them. They run first, in this order.
SLOW = ("deliver/products", "reliability", "system", "browser")
# Files whose tests use a Kafka broker. They run in one process, so that only one broker is started.
WITH_BROKER = re.compile(r"tests/deliver/products/test_real_(cluster|kafka|nodes|repl|serv)\w*\.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first, so that no process has to run them at the end."""
    tests = Path(__file__).parent
    folders = {path: path.parent.relative_to(tests).as_posix() for path in {i.path for i in items}}
    items.sort(
        key=lambda item: next(
            (place for place, slow in enumerate(SLOW) if folders[item.path].startswith(slow)),
            len(SLOW),
        )
    )


@pytest.fixture(scope="session")
def _first_loop() -> None:
    """Run an event loop, because the first one of a process opens pipes that stay open."""
    uvloop.run(asyncio.sleep(0))  # one turn is enough


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute files to processes, and all files of `WITH_BROKER` to the same one."""
    # xdist has no annotations. It is imported only by the process that has loaded it as a plugin.
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "with a broker" if WITH_BROKER.fullmatch(file) else file

    return ByFile(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that has an argument `vector` once for each case of vectors.jsonl."""
    if "vector" in metafunc.fixturenames:
        metafunc.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
