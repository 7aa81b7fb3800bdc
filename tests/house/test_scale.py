"""The table of docs/scale.md follows from its figures."""

from __future__ import annotations

from benchmarks.openloop import requests
from benchmarks.scale import PAGE, capacity, read_figures

TEXT = PAGE.read_text("utf-8")


def test_the_table_of_capacity_follows_from_the_figures() -> None:
    """If not: replace it by the output of `python -m benchmarks.scale`."""
    assert capacity(read_figures(TEXT)) in TEXT


def test_the_size_of_a_request_is_that_of_the_load() -> None:
    sizes = [len(each) for each in requests("wk-bench")]
    assert round(sum(sizes) / len(sizes)) == read_figures(TEXT).request_bytes
