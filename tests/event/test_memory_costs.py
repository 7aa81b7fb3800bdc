"""The memory that an event needs is in proportion to its query, which is at most 32 KB."""

from __future__ import annotations

import tracemalloc

import pytest

from pixelfast.errors import RequestError
from pixelfast.event import EventWriter, Rules

START = "/pixel/v1/track?writeKey=wk-demo&userId=u1&event=e"
LIMIT = 32_768
DEEP = ".a" * 30

# Each with its limit in KiB, about twice what it takes.
EXPENSIVE = {
    "more segments than a key may have": ("&b" + ".a" * 16_000 + "=1", 300),
    "objects in objects": ("".join(f"&properties.{n}{DEEP}=1" for n in range(250)), 3000),
    "arrays in arrays": ("".join(f"&properties.{n}{'.-1' * 28}=1" for n in range(250)), 1500),
    "gaps in arrays": ("".join(f"&properties.{n}{'.63' * 30}=1" for n in range(250)), 1600),
    "gaps in arrays of arrays": ("".join(f"&properties.{n}.63.63.63=1" for n in range(250)), 400),
    "one long name": ("&properties." + "n" * 32_000 + "=1", 900),
    "escapes": ("&properties.a=" + "%01" * 10_000, 400),
    "bytes that are not UTF-8": ("&properties.a=" + "%ff" * 10_000, 700),
    "NULs": ("&properties.a=" + "%00" * 10_000, 100),
    "empty pieces": ("&" * 32_000, 100),
    "a long date": ("&timestamp=2026-11-26T00:00:00." + "1" * 32_000, 200),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_an_expensive_query_stays_within_its_memory_limit(name: str) -> None:
    more, limit_kib = EXPENSIVE[name]
    target = (START + more)[:LIMIT].encode()
    writer, rules = EventWriter(), Rules()
    tracemalloc.start()
    try:
        writer.open(target)
        writer.write(rules, 0, address="192.0.2.1")
    except RequestError:
        pass  # the query is rejected after this work
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= limit_kib * 1024
